// Package demand forecasts how much of a product is sold, hour by hour, and says what follows for its stock and its price.
//
// It is the pure part of the workflow ForecastDemand, which fits a Model to the hours of a product (Fit), and of the hot topology, which carries the model on with each
// hour that is over (Model.Step). Nothing here reads a clock, a file or a random number.
//
// The forecast is one of three, whichever explains the hours best by Schwarz's criterion:
//
//   - Holt–Winters with a weekly season of 168 hours, additive or multiplicative, without or with a damped trend: the methods (N,A), (A_d,A), (N,M), (A_d,M) of Hyndman
//     and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., chapter 8; Hyndman, Koehler, Ord, Snyder, Forecasting with Exponential Smoothing, Springer 2008.
//     Smoothing parameters are found by Nelder and Mead's simplex within bounds, by the squared error one hour ahead. The season begins as the mean week, shrunk towards
//     day of the week × hour of the day by as much as its noise asks for: a few weeks of hourly counts say little about each of 168 hours.
//   - TSB for what is seldom sold: Teunter, Syntetos, Babai, Intermittent demand: linking forecasting to inventory obsolescence, EJOR 214(3), 2011.
//
// Accuracy is the mean absolute scaled error on held-back days (Hyndman, Koehler, Another look at measures of forecast accuracy, IJF 22(4), 2006): the error divided by
// that of the seasonal naïve forecast, the same day of the week before.
package demand
