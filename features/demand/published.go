package demand

// Published is a fit as it is handed to the stream and to whoever asks.
type Published struct {
	Version string `json:"version"`
	Model   Model  `json:"model"` // of no kind: there is no forecast, or none any more
}
