package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// chart is a picture: lines over an axis, or groups of bars.
type chart struct {
	file, title string
	x, y        string // what the axes are
	logX, logY  bool
	lines       []line
	groups      []string    // of bars; each of series has one bar in each
	bars        [][]float64 // by series, then by group
	series      []string
	limit       float64 // a dashed horizontal line; 0: none
}

type line struct {
	name   string
	points [][2]float64
}

// The picture's measures.
const (
	width, height            = 820, 380
	left, right, top, bottom = 78, 250, 40, 56
)

// colours can be told apart by those who see no red or green (Okabe and Ito).
var colours = []string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"}

// scaleOf maps values to pixels.
type scaleOf struct {
	least, most float64
	log         bool
	from, to    float64
}

func (s scaleOf) at(v float64) float64 {
	a, b, v := s.least, s.most, max(v, s.least)
	if s.log {
		a, b, v = math.Log10(a), math.Log10(b), math.Log10(v)
	}
	if b == a {
		return s.from
	}
	return s.from + (v-a)/(b-a)*(s.to-s.from)
}

// ticks returns round values within the scale.
func (s scaleOf) ticks() []float64 {
	var t []float64
	if s.log {
		for p := math.Floor(math.Log10(s.least)); p <= math.Ceil(math.Log10(s.most)); p++ {
			if v := math.Pow(10, p); v >= s.least*0.999 && v <= s.most*1.001 {
				t = append(t, v)
			}
		}
		return t
	}
	step := math.Pow(10, math.Floor(math.Log10((s.most-s.least)/4)))
	for _, m := range []float64{2, 2.5, 2} {
		if (s.most-s.least)/step > 7 {
			step *= m
		}
	}
	for v := math.Ceil(s.least/step) * step; v <= s.most*1.0001; v += step {
		t = append(t, v)
	}
	return t
}

func label(v float64) string {
	if v >= 1000 {
		return count(int(math.Round(v)))
	}
	return fmt.Sprintf("%.4g", v)
}

// svg draws the chart.
func (c *chart) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", html.EscapeString(c.title))
	text := func(x, y float64, anchor, more, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(s))
	}
	text(left, 22, "start", ` font-size="14" font-weight="bold"`, c.title)
	xs, ys := c.scales()
	for _, v := range ys.ticks() {
		y := ys.at(v)
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/>`+"\n", left, y, width-right)
		text(left-6, y+4, "end", "", label(v))
	}
	if len(c.bars) == 0 {
		for _, v := range xs.ticks() {
			text(xs.at(v), height-bottom+18, "middle", "", label(v))
		}
	}
	text((left+width-right)/2, height-12, "middle", "", c.x)
	text(16, (top+height-bottom)/2, "middle", fmt.Sprintf(` transform="rotate(-90 16 %d)"`, (top+height-bottom)/2), c.y)
	names := c.series
	for i, l := range c.lines {
		names = append(names, l.name)
		var path strings.Builder
		for k, p := range l.points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(k, 1)], xs.at(p[0]), ys.at(p[1]))
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", path.String(), colours[i%len(colours)])
	}
	c.drawBars(&b, ys, text)
	if c.limit > 0 {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#444" stroke-dasharray="5 4"/>`+"\n", left, ys.at(c.limit), width-right)
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#444"/>`+"\n", left, top, height-bottom, width-right)
	for i, name := range names {
		y := float64(top + 8 + 20*i)
		fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="12" height="12" fill="%s"/>`+"\n", width-right+12, y-10, colours[i%len(colours)])
		text(width-right+30, y, "start", "", name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c *chart) drawBars(b *strings.Builder, ys scaleOf, text func(x, y float64, anchor, more, s string)) {
	if len(c.bars) == 0 {
		return
	}
	group := float64(width-left-right) / float64(len(c.groups))
	each := group * 0.8 / float64(len(c.bars))
	for g, name := range c.groups {
		x := left + group*float64(g)
		text(x+group/2, height-bottom+18, "middle", "", name)
		for s := range c.bars {
			y := ys.at(c.bars[s][g])
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s, %s: %s</title></rect>`+"\n",
				x+group*0.1+each*float64(s), y, each*0.92, float64(height-bottom)-y, colours[s%len(colours)],
				html.EscapeString(c.series[s]), html.EscapeString(name), label(c.bars[s][g]))
		}
	}
}

// scales returns scales that hold everything.
func (c *chart) scales() (x, y scaleOf) {
	x = scaleOf{least: math.Inf(1), most: math.Inf(-1), log: c.logX, from: left, to: width - right}
	y = scaleOf{least: math.Inf(1), most: math.Inf(-1), log: c.logY, from: height - bottom, to: top}
	see := func(s *scaleOf, v float64) {
		if !s.log || v > 0 {
			s.least, s.most = min(s.least, v), max(s.most, v)
		}
	}
	for _, l := range c.lines {
		for _, p := range l.points {
			see(&x, p[0])
			see(&y, p[1])
		}
	}
	for _, s := range c.bars {
		for _, v := range s {
			see(&y, v)
		}
	}
	if c.limit > 0 {
		see(&y, c.limit)
	}
	if y.log {
		y.least, y.most = math.Pow(10, math.Floor(math.Log10(y.least))), math.Pow(10, math.Ceil(math.Log10(y.most)))
		if len(c.bars) > 0 && y.least == y.most {
			y.least /= 10
		}
	} else {
		y.least, y.most = 0, y.most*1.05
	}
	if y.most <= y.least || math.IsInf(y.least, 0) {
		y.least, y.most = 0, 1
		y.log = false
	}
	return x, y
}
