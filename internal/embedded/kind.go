package embedded

// BrokerKind is the kind of broker that holds this data folder's events: BrokerApache or BrokerKfake, "" before one was installed.
func (p *Platform) BrokerKind() (string, error) { return p.keptBroker() }
