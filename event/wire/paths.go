package wire

import "strings"

// PathRow is a row of the table of paths as people read it.
type PathRow struct {
	Methods string
	Paths   []string
	Format  string
	Clients string
	Auth    string
	Answer  string
}

// PathTable is what the gateway serves to producers: formats and settings, from the tables that it routes by.
func PathTable() []PathRow {
	var out []PathRow
	for _, f := range Formats() {
		row := PathRow{Methods: "POST", Paths: f.Paths, Format: f.Name, Clients: f.Clients, Auth: f.Auth, Answer: `200 {"success":true,…}`}
		if f.Get {
			row.Methods = "POST, GET"
		}
		if f.GIF {
			row.Answer += "; GET: a GIF of 43 bytes"
		}
		if f.Once {
			row.Answer += "; over the key's rate, too: these clients do not send again"
		}
		out = append(out, row)
	}
	for _, s := range Settings() {
		auth := "none"
		if strings.Contains(s.Paths[0], "{key}") {
			auth = "the key is in the path"
		}
		out = append(out, PathRow{Methods: strings.Join(s.Methods, ", "), Paths: s.Paths, Format: s.Name, Clients: s.Clients, Auth: auth, Answer: "200 " + s.Answer})
	}
	return out
}
