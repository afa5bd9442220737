package main

import (
	"fmt"
	"time"

	ui "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

const (
	loopback    = "127.0.0.1"
	clusterName = "active"
	clusterID   = "7c8e3a52-4b1d-4c55-9d0f-6d696c6c7261"
	// One process needs little parallelism; the number can never be changed for an existing database.
	historyShards = 4
)

func address(port int) string { return fmt.Sprintf("%s:%d", loopback, port) }

// newServer assembles the four services on consecutive ports over one store.
func newServer(o options, sql *config.SQL) (temporal.Server, error) {
	conf := serverConfig(o, sql)
	authorizer, err := authorization.GetAuthorizerFromConfig(&conf.Global.Authorization)
	if err != nil {
		return nil, fmt.Errorf("making the authorizer: %w", err)
	}
	host := func(offset int) static.Hosts { return static.SingleLocalHost(address(o.port + offset)) }
	return temporal.NewServer(
		temporal.WithConfig(conf),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: host(0),
			primitives.HistoryService:  host(1),
			primitives.MatchingService: host(2),
			primitives.WorkerService:   host(3),
		}),
		temporal.WithLogger(log.NewZapLogger(log.BuildZapLogger(log.Config{Level: "warn"}))),
		temporal.WithAuthorizer(authorizer),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	)
}

func serverConfig(o options, sql *config.SQL) *config.Config {
	service := func(offset, httpPort int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: o.port + offset, BindOnIP: loopback, HTTPPort: httpPort}}
	}
	conf := &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     "sqlite",
			VisibilityStore:  "sqlite",
			NumHistoryShards: historyShards,
			DataStores:       map[string]config.DataStore{"sqlite": {SQL: sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled: true, InitialFailoverVersion: 1, RPCAddress: address(o.port), ClusterID: clusterID,
			}},
		},
		Services: map[string]config.Service{
			"frontend": service(0, o.port+4),
			"history":  service(1, 0),
			"matching": service(2, 0),
			"worker":   service(3, 0),
		},
	}
	conf.Global.Membership.MaxJoinDuration = 30 * time.Second
	conf.Global.Membership.BroadcastAddress = loopback
	if o.metricsPort > 0 {
		conf.Global.Metrics = &metrics.Config{Prometheus: &metrics.PrometheusConfig{
			ListenAddress: address(o.metricsPort), HandlerPath: "/metrics",
		}}
	}
	conf.DCRedirectionPolicy.Policy = "noop"
	conf.PublicClient.HostPort = address(o.port)
	conf.Archival.History.State = "disabled"
	conf.Archival.Visibility.State = "disabled"
	conf.NamespaceDefaults.Archival.History.State = "disabled"
	conf.NamespaceDefaults.Archival.Visibility.State = "disabled"
	return conf
}

// dynamicConfig lifts the limits that protect a shared database. With the default
// of 20 polls a second every step of a workflow waits 50 ms.
func dynamicConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		dynamicconfig.TransferProcessorMaxPollRPS.Key():                  2000,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():                     2000,
		dynamicconfig.VisibilityProcessorMaxPollRPS.Key():                200,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():           1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key():          1,
	}
}

func newUI(o options) *ui.Server {
	return ui.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host:                loopback,
		Port:                o.uiPort,
		TemporalGRPCAddress: address(o.port),
		EnableUI:            true,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain HTTP on the loopback interface
		HideLogs:            true,
		DisableNewsFetch:    true,
	}))
}
