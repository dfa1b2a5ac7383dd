package pool

import "time"

// lifetimeBounds are the upper bounds of the buckets of lifetimes, each of them
// included. Connections live longer than requests take: from one request's worth
// to the usual idle timeouts, ages and days of a WebSocket.
var lifetimeBounds = [...]time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// lifetimes counts the durations of connections. Unlike [Durations] it belongs to a
// lock that is held anyway, and its sum is a float: 50,000 connections live together through the
// 292 years of a time.Duration in two days.
type lifetimes struct {
	seconds float64
	buckets [len(lifetimeBounds) + 1]uint64 // each without the smaller ones; the last is what exceeds all bounds
}

func (l *lifetimes) record(d time.Duration) {
	i := 0
	for i < len(lifetimeBounds) && d > lifetimeBounds[i] {
		i++
	}
	l.buckets[i]++
	l.seconds += d.Seconds()
}

func (l *lifetimes) totals() DurationTotals {
	totals := DurationTotals{SumSeconds: l.seconds, Buckets: make([]DurationBucket, len(lifetimeBounds))}
	for i, bound := range lifetimeBounds {
		totals.Count += l.buckets[i]
		totals.Buckets[i] = DurationBucket{Seconds: bound.Seconds(), Count: totals.Count}
	}
	totals.Count += l.buckets[len(lifetimeBounds)]
	return totals
}
