package main

import (
	"cmp"
	"math"
	"slices"
)

// spread is the median of something in all rounds, and its quartiles.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Count  int     `json:"count"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	values = slices.Sorted(slices.Values(values))
	return spread{Median: between(values, 0.5), Low: between(values, 0.25), High: between(values, 0.75), Count: len(values)}
}

// between returns the q-quantile of sorted values, linearly between the two beside it.
func between(sorted []float64, q float64) float64 {
	place := q * float64(len(sorted)-1)
	below := int(place)
	above := min(below+1, len(sorted)-1)
	part := place - float64(below)
	return sorted[below]*(1-part) + sorted[above]*part
}

// quantile returns the smallest of sorted values that a part q of them does not exceed.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	var none T
	if len(sorted) == 0 {
		return none
	}
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// metric is one figure of a sample; ok is false where the sample has none.
type metric func(*sample) (value float64, ok bool)

// values returns a metric of one form, round by round.
func (r *result) values(form string, m metric) spread {
	var all []float64
	for _, samples := range r.Rounds {
		if s := samples[form]; s != nil {
			if v, ok := m(s); ok {
				all = append(all, v)
			}
		}
	}
	return spreadOf(all)
}

// ratios returns the ratio of a metric of one form to another's of the same round.
func (r *result) ratios(form, to string, m metric) spread {
	return r.pairs(form, to, m, func(a, b float64) float64 { return a / b })
}

// turnRatios returns the ratio of the processor time of an operation on one form to that on another: of each round the median of the
// ratios of all turns, because what disturbs the machine for longer than a slice disturbs both of them in the same turn.
func (r *result) turnRatios(form, to string) spread {
	var all []float64
	for _, samples := range r.Rounds {
		a, b := samples[form], samples[to]
		if a == nil || b == nil {
			continue
		}
		var turns []float64
		for i := range min(len(a.Turns), len(b.Turns)) {
			turns = append(turns, a.Turns[i]/b.Turns[i])
		}
		if len(turns) > 0 {
			all = append(all, spreadOf(turns).Median)
		}
	}
	return spreadOf(all)
}

// differences returns how much more a metric of one form is than another's of the same round.
func (r *result) differences(form, from string, m metric) spread {
	return r.pairs(form, from, m, func(a, b float64) float64 { return a - b })
}

func (r *result) pairs(form, base string, m metric, compare func(a, b float64) float64) spread {
	var all []float64
	for _, samples := range r.Rounds {
		a, b := samples[form], samples[base]
		if a == nil || b == nil {
			continue
		}
		va, ok := m(a)
		vb, okBase := m(b)
		if ok && okBase {
			all = append(all, compare(va, vb))
		}
	}
	return spreadOf(all)
}

// perTurn is the processor time of an operation, in the turn in the middle.
func perTurn(s *sample) (float64, bool) { return spreadOf(s.Turns).Median, len(s.Turns) > 0 }

// perOperation is a metric of the closed loop, divided by the number of operations.
func perOperation(value func(*sample) float64) metric {
	return func(s *sample) (float64, bool) { return value(s) / float64(s.Operations), s.Operations > 0 }
}

// measured is a metric that is there where it is not zero.
func measured(value func(*sample) float64) metric {
	return func(s *sample) (float64, bool) {
		v := value(s)
		return v, v != 0
	}
}

// ofMemory is a metric of idle connections.
func ofMemory(value func(*memory) float64) metric {
	return func(s *sample) (float64, bool) {
		if s.Memory == nil {
			return 0, false
		}
		return value(s.Memory), true
	}
}
