package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"millrace/internal/fault"
)

// wire is one protocol's requests and answers.
type wire struct {
	cfg     ServerConfig
	host    string // for messages
	predict string // addresses
	ready   string
	missing string
}

func newWire(cfg ServerConfig) wire {
	base, _ := url.Parse(cfg.URL) // Validate has seen it
	at := func(parts ...string) string { return base.JoinPath(parts...).String() }
	w := wire{cfg: cfg, host: base.Host, missing: cfg.Missing}
	if w.missing == "" {
		if w.missing = "null"; cfg.Protocol == TFServing {
			w.missing = "NaN" // which its parser takes
		}
	}
	if cfg.Protocol == KServeV2 {
		path := []string{"v2", "models", cfg.Model}
		if cfg.Version != "" {
			path = append(path, "versions", cfg.Version)
		}
		w.predict, w.ready = at(append(path, "infer")...), at(append(path, "ready")...)
		return w
	}
	path := []string{"v1", "models", cfg.Model}
	if cfg.Version != "" {
		path = append(path, "versions", cfg.Version)
	}
	w.ready = at(path...)
	w.predict = w.ready + ":predict"
	return w
}

// request writes the rows. JSON is made by hand, since encoding/json refuses NaN.
func (w *wire) request(rows [][]float64) ([]byte, error) {
	width := len(rows[0])
	for _, r := range rows {
		if len(r) != width {
			return nil, fmt.Errorf("a row of %d features beside one of %d", len(r), width)
		}
		for _, v := range r {
			if math.IsInf(v, 0) {
				return nil, errors.New("a feature is infinite")
			}
		}
	}
	name := func(dst []byte, s string) []byte {
		text, _ := json.Marshal(s) // a string always marshals
		return append(dst, text...)
	}
	out := make([]byte, 0, 64+len(rows)*width*8)
	if w.cfg.Protocol == KServeV2 {
		input := w.cfg.Input
		if input == "" {
			input = "x"
		}
		out = append(name(append(out, `{"inputs":[{"name":`...), input), fmt.Sprintf(`,"shape":[%d,%d],"datatype":"FP64","data":[`, len(rows), width)...)
		for i, r := range rows {
			if i > 0 {
				out = append(out, ',')
			}
			out = w.numbers(out, r)
		}
		out = append(out, "]}]"...)
		if w.cfg.Output != "" {
			out = append(name(append(out, `,"outputs":[{"name":`...), w.cfg.Output), "}]"...)
		}
		return append(out, '}'), nil
	}
	out = append(out, '{')
	if w.cfg.Signature != "" {
		out = append(name(append(out, `"signature_name":`...), w.cfg.Signature), ',')
	}
	out = append(out, `"instances":[`...)
	for i, r := range rows {
		if i > 0 {
			out = append(out, ',')
		}
		if w.cfg.Input != "" {
			out = append(name(append(out, '{'), w.cfg.Input), ':')
		}
		out = append(w.numbers(append(out, '['), r), ']')
		if w.cfg.Input != "" {
			out = append(out, '}')
		}
	}
	return append(out, "]}"...), nil
}

func (w *wire) numbers(dst []byte, row []float64) []byte {
	for i, v := range row {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v != v {
			dst = append(dst, w.missing...)
		} else {
			dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
	}
	return dst
}

// ask sends one request and reads its scores.
func (s *Server) ask(ctx context.Context, body []byte, rows int) ([]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.wire.predict, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header["Idempotency-Key"] = []string{} // not sent: says that a connection which the server closed meanwhile (uvicorn does after a 500) is no reason to fail
	answer, status, err := s.send(req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		reason := ReasonStatus
		if status == http.StatusBadRequest || status == http.StatusUnprocessableEntity {
			reason = ReasonRequest
		}
		return nil, &reasoned{reason, fmt.Errorf("status %d: %s", status, said(answer))}
	}
	scores, err := s.wire.answer(answer, rows)
	if err != nil {
		return nil, &reasoned{ReasonAnswer, err}
	}
	return scores, nil
}

// send gives the body of an answer, which is read up to the bound.
func (s *Server) send(req *http.Request) ([]byte, int, error) {
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // what is needed was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, s.cfg.MaxBytes+1))
	switch {
	case err != nil:
		return nil, 0, err
	case int64(len(text)) > s.cfg.MaxBytes:
		return nil, 0, &reasoned{ReasonAnswer, fmt.Errorf("the answer has more than %d bytes", s.cfg.MaxBytes)}
	}
	return text, resp.StatusCode, nil
}

// said is what a server says of an error, cut.
func said(text []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &e) == nil && e.Error != "" {
		text = []byte(e.Error)
	}
	return fmt.Sprintf("%.200q", text)
}

// Ready asks whether the server has the model.
func (s *Server) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	fail := func(err error) error {
		return fault.Newf("MR-MOD-005", "model %s at %s: %w", s.cfg.Model, s.wire.host, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.wire.ready, http.NoBody)
	if err != nil {
		return fail(err)
	}
	text, status, err := s.send(req)
	if err != nil {
		return fail(err)
	}
	var v struct {
		Ready  *bool `json:"ready"` // KServe
		States []struct {
			State string `json:"state"`
		} `json:"model_version_status"` // TensorFlow Serving
	}
	if status != http.StatusOK {
		return fail(fmt.Errorf("status %d: %s", status, said(text)))
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil // MLServer's answer to the question whether a model is ready
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return fail(err)
	}
	if v.Ready != nil && !*v.Ready {
		return fail(errors.New("it is not ready"))
	}
	for _, st := range v.States {
		if st.State == "AVAILABLE" {
			return nil
		}
	}
	if len(v.States) > 0 {
		return fail(fmt.Errorf("it is in state %.40q", v.States[0].State))
	}
	return nil
}

// answer reads the scores of as many rows.
func (w *wire) answer(text []byte, rows int) ([]float64, error) {
	if w.cfg.Protocol == KServeV2 {
		return w.tensors(text, rows)
	}
	var a struct {
		Predictions []json.RawMessage `json:"predictions"`
		Outputs     json.RawMessage   `json:"outputs"` // the columnar form
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("the answer is not the JSON of a prediction: %w", err)
	}
	if a.Predictions == nil && a.Outputs != nil {
		column, err := w.named(a.Outputs)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(column, &a.Predictions); err != nil {
			return nil, fmt.Errorf("outputs: %w", err)
		}
	}
	if len(a.Predictions) != rows {
		return nil, fmt.Errorf("%d predictions for %d rows", len(a.Predictions), rows)
	}
	out := make([]float64, rows)
	for i, p := range a.Predictions {
		one, err := w.named(p)
		if err != nil {
			return nil, fmt.Errorf("prediction %d: %w", i, err)
		}
		if out[i], err = w.score(one); err != nil {
			return nil, fmt.Errorf("prediction %d: %w", i, err)
		}
	}
	return out, nil
}

// named takes the output out of an object; anything else is the output itself.
func (w *wire) named(text json.RawMessage) (json.RawMessage, error) {
	if len(text) == 0 || text[0] != '{' {
		return text, nil
	}
	var outputs map[string]json.RawMessage
	if err := json.Unmarshal(text, &outputs); err != nil {
		return nil, err
	}
	if one, ok := outputs[w.cfg.Output]; ok {
		return one, nil
	}
	if len(outputs) == 1 && w.cfg.Output == "" {
		for _, one := range outputs {
			return one, nil
		}
	}
	return nil, fmt.Errorf("no output %q among %d", w.cfg.Output, len(outputs))
}

// score reads a number, or the class of a list of them.
func (w *wire) score(text json.RawMessage) (float64, error) {
	var list []*float64
	if len(text) > 0 && text[0] == '[' {
		if err := json.Unmarshal(text, &list); err != nil {
			return 0, err
		}
	} else {
		var one *float64
		if err := json.Unmarshal(text, &one); err != nil {
			return 0, err
		}
		list = []*float64{one}
		if w.cfg.Class > 0 {
			return 0, fmt.Errorf("one number, class %d is asked for", w.cfg.Class)
		}
	}
	return w.class(list)
}

func (w *wire) class(list []*float64) (float64, error) {
	i := w.cfg.Class
	if i < 0 {
		i = len(list) - 1
	}
	switch {
	case i < 0 || i >= len(list):
		return 0, fmt.Errorf("%d numbers, class %d is asked for", len(list), w.cfg.Class)
	case list[i] == nil:
		return 0, errors.New("null is no score")
	}
	return *list[i], nil // JSON has no other numbers than finite ones
}

// tensors reads an answer of V2.
func (w *wire) tensors(text []byte, rows int) ([]float64, error) {
	var a struct {
		Outputs []struct {
			Name  string     `json:"name"`
			Shape []int64    `json:"shape"`
			Data  []*float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("the answer is not the JSON of an inference: %w", err)
	}
	for _, o := range a.Outputs {
		if w.cfg.Output != "" && o.Name != w.cfg.Output {
			continue
		}
		if len(o.Shape) == 0 || o.Shape[0] != int64(rows) {
			return nil, fmt.Errorf("output %.40q has shape %v for %d rows", o.Name, o.Shape, rows)
		}
		width := int64(1)
		for _, n := range o.Shape[1:] {
			if n < 1 || n > MaxOutputs || width > MaxOutputs {
				return nil, fmt.Errorf("output %.40q has shape %v", o.Name, o.Shape)
			}
			width *= n
		}
		if int64(len(o.Data)) != int64(rows)*width {
			return nil, fmt.Errorf("output %.40q has %d numbers for shape %v", o.Name, len(o.Data), o.Shape)
		}
		out := make([]float64, rows)
		for i := range out {
			var err error
			if out[i], err = w.class(o.Data[int64(i)*width : int64(i+1)*width]); err != nil {
				return nil, fmt.Errorf("row %d: %w", i, err)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("no output %q among %d", w.cfg.Output, len(a.Outputs))
}
