package admin

import "github.com/prometheus/client_golang/prometheus"

var (
	reloadSuccessful = prometheus.NewDesc("mux_config_last_reload_successful",
		"1 if the last reload of the configuration succeeded, 0 if it failed and an older one is still in force.", nil, nil)
	reloadTime = prometheus.NewDesc("mux_config_last_reload_success_timestamp_seconds",
		"When a configuration was last put in force, in seconds since 1970.", nil, nil)
)

// reloadCollector shows Prometheus how the last reload went. The start counts as one.
type reloadCollector struct{ server Server }

var _ prometheus.Collector = reloadCollector{}

// Describe implements [prometheus.Collector].
func (reloadCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- reloadSuccessful
	ch <- reloadTime
}

// Collect implements [prometheus.Collector].
func (c reloadCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.server.History()
	successful := 1.0
	if h.Failing {
		successful = 0
	}
	const millis = 1e3
	ch <- prometheus.MustNewConstMetric(reloadSuccessful, prometheus.GaugeValue, successful)
	ch <- prometheus.MustNewConstMetric(reloadTime, prometheus.GaugeValue, float64(h.Succeeded.UnixMilli())/millis)
}
