// Package anomaly says when a number that is counted each minute is not what it should be at that minute of the week.
//
// It stands behind the KPIs: the second stage of the hot topology gives it the total of each minute of each tenant, and turns each incident into one alert. It is pure:
// no clock, no randomness, no memory of its own.
//
// The rule is a robust seasonal z-score. What is expected of a minute is the season of that time of the week, times the level that the last hour had beside its season; how
// far off a minute is, is measured by the median absolute deviation of the minutes before (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, for the robust
// z-score; Cleveland et al., "STL", J. Off. Stat. 6, 1990, for season × level + remainder with robust weights; Hochenbaum, Vallis and Kejariwal, "Automatic Anomaly Detection in
// the Cloud Via Statistical Learning", 2017, for the two together on such series). It all happens to square roots (Anscombe, "The transformation of Poisson, binomial and negative-binomial
// data", Biometrika 35, 1948): what is counted then has the same deviation at night as at noon, and a scale that is learned at one time of day holds at another.
//
// Three windows are looked at: the last minute (twice in a row), the sum of the last 5 and that of the last 15, so that a shop with an order a minute is seen to have none, only later
// than one with a hundred a minute. What is far off in deviations but not in proportion is no incident.
package anomaly
