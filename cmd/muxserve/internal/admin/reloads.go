package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ReloadStatus tells how the last reload of the configuration went.
type ReloadStatus interface {
	// ReloadStatus reports whether the last attempt succeeded, and when one last
	// did; the zero time stands for the start. It may be called concurrently.
	ReloadStatus() (successful bool, at time.Time)
}

var (
	reloadSuccessful = prometheus.NewDesc("mux_config_last_reload_successful",
		"1 if the last reload of the configuration succeeded, 0 if it failed and an older one is still in force.", nil, nil)
	reloadTime = prometheus.NewDesc("mux_config_last_reload_success_timestamp_seconds",
		"When a configuration was last put in force, in seconds since 1970.", nil, nil)
)

// reloadCollector shows a ReloadStatus to Prometheus. The configuration of the
// start counts as a successful reload.
type reloadCollector struct {
	status  ReloadStatus // may be nil
	started time.Time
}

var _ prometheus.Collector = reloadCollector{}

// Describe implements [prometheus.Collector].
func (c reloadCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- reloadSuccessful
	ch <- reloadTime
}

// Collect implements [prometheus.Collector].
func (c reloadCollector) Collect(ch chan<- prometheus.Metric) {
	successful, at := true, time.Time{}
	if c.status != nil {
		successful, at = c.status.ReloadStatus()
	}
	if at.IsZero() {
		at = c.started
	}
	value := 0.0
	if successful {
		value = 1
	}
	const millis = 1e3
	ch <- prometheus.MustNewConstMetric(reloadSuccessful, prometheus.GaugeValue, value)
	ch <- prometheus.MustNewConstMetric(reloadTime, prometheus.GaugeValue, float64(at.UnixMilli())/millis)
}
