package rules

import "math"

// slack is taken off the distance of two countries: where in them somebody is, is not known.
const slack = 800 // km

// Distance is about how far one has to go from one country to another at least: the great circle between their middles (haversine formula; R. W. Sinnott, "Virtues of the
// Haversine", Sky and Telescope 1984), less 800 km. false if one is not in the table.
func Distance(from, to string) (km float64, ok bool) {
	a, okA := middles[from]
	b, okB := middles[to]
	if !okA || !okB {
		return 0, false
	}
	const radius, rad = 6371.0, math.Pi / 180
	sin := func(x float64) float64 { s := math.Sin(x * rad / 2); return s * s }
	h := sin(b[0]-a[0]) + math.Cos(a[0]*rad)*math.Cos(b[0]*rad)*sin(b[1]-a[1])
	return max(0, 2*radius*math.Asin(math.Min(1, math.Sqrt(h)))-slack), true
}

// middles are about where most people of a country live: latitude and longitude, in degrees.
var middles = map[string][2]float64{
	"AE": {25, 55}, "AR": {-34, -60}, "AT": {48, 15}, "AU": {-34, 149}, "BD": {24, 90}, "BE": {51, 4}, "BG": {43, 25}, "BO": {-17, -65}, "BR": {-20, -46}, "CA": {45, -77}, "CH": {47, 8},
	"CL": {-33, -71}, "CN": {33, 114}, "CO": {5, -74}, "CR": {10, -84}, "CU": {22, -79}, "CY": {35, 33}, "CZ": {50, 15}, "DE": {51, 10}, "DK": {56, 11}, "DO": {19, -70}, "DZ": {36, 3},
	"EC": {-2, -79}, "EE": {59, 26}, "EG": {30, 31}, "ES": {40, -3}, "ET": {9, 39}, "FI": {61, 25}, "FR": {47, 3}, "GB": {52, -1}, "GH": {6, -1}, "GR": {38, 23}, "GT": {15, -91},
	"HK": {22, 114}, "HR": {45, 16}, "HU": {47, 19}, "ID": {-7, 110}, "IE": {53, -7}, "IL": {32, 35}, "IN": {22, 79}, "IQ": {33, 44}, "IR": {34, 51}, "IS": {64, -21}, "IT": {43, 12},
	"JM": {18, -77}, "JO": {32, 36}, "JP": {35, 138}, "KE": {-1, 37}, "KH": {12, 105}, "KR": {37, 127}, "KW": {29, 48}, "KZ": {47, 72}, "LB": {34, 36}, "LK": {7, 80}, "LT": {55, 24},
	"LU": {50, 6}, "LV": {57, 24}, "MA": {33, -7}, "MT": {36, 14}, "MX": {20, -99}, "MY": {3, 102}, "NG": {8, 6}, "NL": {52, 5}, "NO": {60, 10}, "NP": {28, 85}, "NZ": {-38, 175},
	"OM": {23, 58}, "PA": {9, -80}, "PE": {-11, -77}, "PH": {14, 121}, "PK": {31, 72}, "PL": {52, 19}, "PT": {40, -8}, "PY": {-25, -57}, "QA": {25, 51}, "RO": {45, 25}, "RS": {44, 21},
	"RU": {55, 42}, "SA": {24, 45}, "SE": {59, 16}, "SG": {1, 104}, "SI": {46, 15}, "SK": {49, 19}, "SN": {15, -17}, "SV": {14, -89}, "TH": {14, 101}, "TN": {36, 10}, "TR": {40, 32},
	"TW": {24, 121}, "TZ": {-6, 37}, "UA": {49, 32}, "UG": {1, 32}, "US": {39, -92}, "UY": {-34, -56}, "UZ": {41, 68}, "VE": {10, -68}, "VN": {16, 107}, "ZA": {-28, 28}, "ZM": {-14, 28},
}
