package olap

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event/schema"
	"millrace/internal/fault"
)

// AddPromoted brings a table to the columns of promoted properties: those it lacks are added at its end, and one whose type has become wider is widened. It is
// idempotent and may run in several processes at once. cluster names the cluster whose tables they are, "" for one server.
//
// A column of another type than the promotion's is fault MR-CH-002: it was made by hand.
func AddPromoted(ctx context.Context, conn driver.Conn, table string, ps []schema.Promotion, cluster string) error {
	if len(ps) == 0 {
		return nil
	}
	have, err := columnTypes(ctx, conn, table)
	if err != nil {
		return err
	}
	for _, p := range ps {
		stmts, err := PromotedDDL(table, p, have[p.Name], cluster)
		if err != nil {
			return err
		}
		for _, stmt := range stmts {
			if err := conn.Exec(ctx, stmt); err != nil {
				return fault.Newf("MR-CH-002", "column %s of %s: %w", p.Name, table, err)
			}
		}
	}
	return nil
}

// PromotedDDL gives the statements that bring a table from a column of type have, "" if there is none, to that of a promotion.
func PromotedDDL(table string, p schema.Promotion, have, cluster string) ([]string, error) {
	c := p.Column()
	t := ColumnType(c.Field)
	verb := "ADD COLUMN IF NOT EXISTS"
	switch {
	case have == t:
		return nil, nil
	case have == "":
	case have == "Nullable(Int32)" && t == "Nullable(Int64)":
		verb = "MODIFY COLUMN"
	case have == "Nullable(Int64)" && t == "Nullable(Int32)": // another process knows a newer promotion
		return nil, nil
	default:
		return nil, fault.New("MR-CH-002", fmt.Errorf("column %s of %s has type %s, the promotion asks for %s", p.Name, table, have, t))
	}
	if cluster == "" {
		return []string{fmt.Sprintf("ALTER TABLE %s %s %s %s", table, verb, p.Name, t)}, nil
	}
	return []string{
		fmt.Sprintf("ALTER TABLE %s_local ON CLUSTER %s %s %s %s", table, cluster, verb, p.Name, t),
		fmt.Sprintf("ALTER TABLE %s ON CLUSTER %s %s %s %s", table, cluster, verb, p.Name, t),
	}, nil
}

func columnTypes(ctx context.Context, conn driver.Conn, table string) (map[string]string, error) {
	rows, err := conn.Query(ctx, "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = ?", table)
	if err != nil {
		return nil, fault.Newf("MR-CH-002", "reading system.columns: %w", err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, t string
		if err := rows.Scan(&name, &t); err != nil {
			return nil, fmt.Errorf("reading system.columns: %w", err)
		}
		out[name] = t
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Newf("MR-CH-002", "reading system.columns: %w", err)
	}
	return out, nil
}
