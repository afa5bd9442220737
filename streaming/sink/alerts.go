package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
	"millrace/olap"
)

// Alerts come on two topics: provisional ones on alerts.fast, on arrival and outside of transactions, and confirmed ones on alerts, exactly once. Both have the same id. Every sink reads
// both and goes by the id: ClickHouse replaces rows by version, where a confirmed one is above every provisional one; Redis by a script (live.PutAlerts); destinations by a note of what
// was sent (Webhooks). So each shows an alert once, whatever is read again.

// alertTopics are the topics of alerts.
func alertTopics() []string { return []string{event.TopicAlerts, event.TopicAlertsFast} }

// errBadAlert says that a record is no alert, and never will be.
var errBadAlert = errors.New("no alert")

// decodeAlert reads an alert. What is confirmed goes by the topic, not by what the producer says. An error that is errBadAlert is one of the record; any other is of the moment.
func decodeAlert(ctx context.Context, codecs *schema.Codecs, r *kgo.Record, a *event.Alert) error {
	*a = event.Alert{}
	if err := codecs.Decode(ctx, r.Topic, r.Value, a); err != nil {
		var answer *sr.ResponseError
		var away net.Error
		if errors.As(err, &answer) && answer.StatusCode != http.StatusNotFound || errors.As(err, &away) || ctx.Err() != nil {
			return err // the registry does not answer
		}
		return fault.Newf("MR-EVT-002", "%w: %w", errBadAlert, err)
	}
	a.Confirmed = r.Topic == event.TopicAlerts
	if a.AlertID == "" || a.Tenant == "" || math.IsNaN(a.Score) || math.IsInf(a.Score, 0) {
		return fmt.Errorf("%w: id %.40q, tenant %.40q, score %v", errBadAlert, a.AlertID, a.Tenant, a.Score)
	}
	return nil
}

// alerts says whether this is one of the topics of alerts.
func (t *clickhouseTopic) alerts() bool {
	return t.name == event.TopicAlerts || t.name == event.TopicAlertsFast
}

// version orders the copies of a row that is replaced.
func (t *clickhouseTopic) version(generation uint16, offset int64) uint64 {
	v := uint64(generation)<<48 | uint64(offset)
	if t.alerts() {
		v &^= olap.AlertConfirmed
		if t.name == event.TopicAlerts {
			v |= olap.AlertConfirmed
		}
	}
	return v
}
