package main

import (
	"fmt"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/testdata/fleet/sim"
)

// The fleet of the questions.
const (
	replicas   = 100
	webSockets = 1_000_000
	channels   = 100_000
	rtt        = 20 * time.Millisecond
	startTime  = 2 * time.Second
	seed       = 1
	begins     = 10 * time.Second // the first event
)

// questions returns all of them, for a share of the clients.
func questions(scale float64) []*question {
	return []*question{
		restart(scale), handshakes(scale), spreads(scale), kinds(scale), growth(scale), death(scale), late(scale), accept(scale),
	}
}

func scaled(n int, scale float64) int { return max(1, int(float64(n)*scale)) }

func profile(name string) lifecycle.Config {
	c, err := lifecycle.Profile(name)
	if err != nil {
		panic(err)
	}
	return c
}

// spreadOver returns a configuration whose drain tells its clients over another time. Its
// timeout leaves it as much time for the rest as it had.
func spreadOver(c lifecycle.Config, over time.Duration) lifecycle.Config {
	c.Timeout += max(0, over-c.Spread)
	c.Spread = over
	return c
}

// mixed are WebSockets and gRPC channels over TLS.
func mixed(scale float64, tls sim.TLS, back sim.Backoff) []sim.Clients {
	return []sim.Clients{
		{Name: "WebSocket", Kind: sim.WebSocket, Count: scaled(webSockets, scale), Backoff: back, TLS: tls, PingEvery: 30 * time.Second, PingTimeout: 10 * time.Second},
		{
			Name: "gRPC", Kind: sim.GRPC, Count: scaled(channels, scale), Backoff: sim.BackoffGRPC, TLS: tls,
			Every: 10 * time.Second, Takes: 50 * time.Millisecond, PingEvery: 30 * time.Second, PingTimeout: 20 * time.Second,
		},
	}
}

// rolling is a rolling restart of all of them.
func rolling(clients []sim.Clients, b sim.Balancer, drain lifecycle.Config) sim.Scenario {
	return sim.Scenario{
		Seed: seed, Replicas: replicas, Processors: 1, Drain: drain, StartTime: startTime, RTT: rtt,
		Balancer: b, Clients: clients, Events: []sim.Event{{At: begins, Roll: &sim.Roll{}}},
	}
}

func restart(scale float64) *question {
	q := &question{
		name:  "restart",
		title: "a rolling restart of 100 replicas, one at a time",
		text: fmt.Sprintf(`
%s WebSockets and %s gRPC channels over TLS without resumption; HAProxy with the recipe's checks; one processor of each replica is
free for handshakes. *Own part*: each client is told at a random moment of its own part of the spread, as muxserve does it;
*anywhere*: at a moment that is independent of the others'. Clients come back after 1 s, or after 1 s ± 50 %% (socket.io). With round
robin the replicas that wait for their restart get fuller with each one, to 2.7 times as many at the end; with least connections
the one that has just started takes all.`, count(scaled(webSockets, scale)), count(scaled(channels, scale))),
		head: []string{"balancer", "spread", "moments", "clients", "peak of reconnects a second", "peak of handshakes on a replica, in processors",
			"longest wait for a handshake", "longest without service", "1 % without service for more than", "lost", "reconnects", "the restart takes"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.PeakReconnects), load(one.PeakHandshake), span(one.LongestQueue), span(one.Longest),
				span(one.Outages.Quantile(0.99)), count(one.Loss()), count(one.Reconnects), span(one.Took)}
		},
	}
	for _, p := range []sim.Policy{sim.RoundRobin, sim.LeastConn} {
		for _, over := range []time.Duration{0, 5 * time.Second, 30 * time.Second, 120 * time.Second} {
			for _, anywhere := range []bool{false, true} {
				for _, jitter := range []bool{false, true} {
					back, clients, moments := sim.BackoffPage, "1 s", "own part"
					if jitter {
						back, clients = sim.BackoffJitter, "1 s ± 50 %"
					}
					if anywhere {
						moments = "anywhere"
					}
					s := rolling(mixed(scale, sim.TLSFull, back), sim.HAProxy(p), spreadOver(profile("haproxy"), over))
					s.Uniform = anywhere
					q.rows = append(q.rows, row{labels: []string{p.String(), whole(over), moments, clients}, scenarios: []sim.Scenario{s}})
				}
			}
		}
	}
	q.charts = restartCharts
	return q
}

func restartCharts(q *question) []chart {
	peaks := chart{file: "restart-peak", title: "Rolling restart: busiest second", x: "drain.spread", y: "reconnects a second", logY: true}
	asked := chart{
		file: "restart-handshakes", title: "Rolling restart: handshakes on one replica, busiest second", x: "drain.spread",
		y: "processors", logY: true, limit: 1,
	}
	moment := chart{file: "restart-moment", title: "One restart of a hundred, least connections", x: "seconds since the SIGTERM", y: "reconnects a second", logY: true}
	for _, r := range q.rows {
		if r.labels[2] == "anywhere" {
			continue
		}
		name := r.labels[0] + ", " + r.labels[3]
		for _, c := range []*chart{&peaks, &asked} {
			if len(c.series) == 0 || c.series[len(c.series)-1] != name {
				if at := indexOf(c.series, name); at < 0 {
					c.series, c.bars = append(c.series, name), append(c.bars, nil)
				}
			}
			if indexOf(c.groups, r.labels[1]) < 0 {
				c.groups = append(c.groups, r.labels[1])
			}
		}
		at := indexOf(peaks.series, name)
		peaks.bars[at] = append(peaks.bars[at], float64(r.results[0].PeakReconnects))
		asked.bars[at] = append(asked.bars[at], r.results[0].PeakHandshake)
		if r.labels[0] == sim.LeastConn.String() && r.labels[3] == "1 s" {
			moment.lines = append(moment.lines, line{"spread " + r.labels[1], perSecond(r.results[0].Series, 45)})
		}
	}
	return []chart{peaks, asked, moment}
}

func indexOf(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}

// perSecond returns a series by the half second, in reconnects a second.
func perSecond(series []int32, most int) [][2]float64 {
	const step = 5
	var points [][2]float64
	for i := 0; i+step <= len(series) && len(points) < 2*most; i += step {
		sum := 0
		for _, n := range series[i : i+step] {
			sum += int(n)
		}
		points = append(points, [2]float64{float64(i) / 10, max(0.5, float64(sum)*10/step)})
	}
	return points
}

func handshakes(scale float64) *question {
	q := &question{
		name:  "handshakes",
		title: "what a handshake costs, and how many replicas restart at once",
		text: `
The same fleet with a spread of 5 s, behind kube-proxy with 100 nodes and behind HAProxy's least connections. Twenty-five at once is the
default of a Kubernetes Deployment (maxUnavailable 25 %). Sessions are resumed on another replica only where all have the same
tls.ticket_keys.`,
		head: []string{"balancer", "at once", "handshake", "peak of reconnects a second", "peak of handshakes on a replica, in processors",
			"longest wait for a handshake", "longest without service", "lost", "the restart takes"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.PeakReconnects), load(one.PeakHandshake), span(one.LongestQueue), span(one.Longest), count(one.Loss()), span(one.Took)}
		},
	}
	for _, b := range []sim.Balancer{sim.KubeProxy(100), sim.HAProxy(sim.LeastConn)} {
		for _, atOnce := range []int{1, 5, 25} {
			for _, tls := range []sim.TLS{sim.Plain, sim.TLSResumed, sim.TLSFull} {
				s := rolling(mixed(scale, tls, sim.BackoffJitter), b, spreadOver(profile("haproxy"), 5*time.Second))
				s.Events[0].Roll.AtOnce = atOnce
				q.rows = append(q.rows, row{labels: []string{b.Name, fmt.Sprint(atOnce), tls.String()}, scenarios: []sim.Scenario{s}})
			}
		}
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "handshakes", title: "Handshakes on one replica, busiest second, spread 5 s", x: "balancer, replicas at once", y: "processors", logY: true, limit: 1}
		for i, r := range q.rows {
			if i%3 == 0 {
				c.groups = append(c.groups, r.labels[0]+" "+r.labels[1])
			}
			if i < 3 {
				c.series, c.bars = append(c.series, r.labels[2]), append(c.bars, nil)
			}
			c.bars[i%3] = append(c.bars[i%3], r.results[0].PeakHandshake)
		}
		return []chart{c}
	}
	return q
}

// spreads tries the profiles with other spreads.
func spreads(scale float64) *question {
	q := &question{
		name:  "spreads",
		title: "the profiles and their spreads",
		text: `
Twenty replicas, each with 10,000 WebSockets over TLS without resumption, whose clients come back after 1 s. All are restarted, for k8s
five at once (maxUnavailable 25 %) and otherwise one by one. *Time left* is what drain.timeout leaves behind the delay, the spread and the
step's own time to requests and calls of those that are told last; it has to be positive. The default is shown behind HAProxy's round robin
and least connections.`,
		head: []string{"profile", "balancer", "spread", "time left", "peak of reconnects a second", "peak of handshakes on a replica, in processors",
			"longest wait for a handshake", "longest without service", "lost", "a drain takes"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.PeakReconnects), load(one.PeakHandshake), span(one.LongestQueue), span(one.Longest), count(one.Loss()), span(one.Drain)}
		},
	}
	least := sim.HAProxy(sim.LeastConn)
	for _, p := range []struct {
		name     string
		balancer sim.Balancer
		atOnce   int
		spreads  []int
	}{
		{"", sim.HAProxy(sim.RoundRobin), 1, []int{2, 5, 10, 15}},
		{"", least, 1, []int{2, 5, 10, 15}},
		{"k8s", sim.KubeProxy(20), 5, []int{2, 4, 6, 8, 10}},
		{"haproxy", least, 1, []int{5, 10, 15, 20, 30, 40}},
		{"nlb", sim.NLB(false), 1, []int{10, 20, 40, 60, 80}},
	} {
		for _, over := range p.spreads {
			c := profile(p.name)
			c.Spread = time.Duration(over) * time.Second
			s := sim.Scenario{
				Seed: seed, Replicas: 20, Processors: 1, Drain: c, StartTime: startTime, RTT: rtt, Balancer: p.balancer,
				Clients: []sim.Clients{{Kind: sim.WebSocket, Count: scaled(200_000, scale), Backoff: sim.BackoffPage, TLS: sim.TLSFull}},
				Events:  []sim.Event{{At: begins, Roll: &sim.Roll{AtOnce: p.atOnce}}},
			}
			name := p.name
			if name == "" {
				name = "(default)"
			}
			q.rows = append(q.rows, row{
				labels:    []string{name, p.balancer.Name + ", " + p.balancer.Policy.String(), whole(c.Spread), whole(c.Timeout - c.Delay - c.Spread - c.StepTimeout)},
				scenarios: []sim.Scenario{s},
			})
		}
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "spreads", title: "Handshakes of a restart on one replica, 10,000 WebSockets each", x: "drain.spread in seconds", y: "processors", logY: true, limit: 1}
		for _, r := range q.rows {
			name := r.labels[0] + " " + r.scenarios[0].Balancer.Policy.String()
			if n := len(c.lines); n == 0 || c.lines[n-1].name != name {
				c.lines = append(c.lines, line{name: name})
			}
			l := &c.lines[len(c.lines)-1]
			l.points = append(l.points, [2]float64{r.scenarios[0].Drain.Spread.Seconds(), r.results[0].PeakHandshake})
		}
		return []chart{c}
	}
	return q
}

// kinds has each kind of client go through the same restart.
func kinds(scale float64) *question {
	q := &question{
		name:  "kinds",
		title: "each kind of client in a rolling restart",
		text: `
Twenty replicas with 10,000 connections each, over TLS without resumption, behind HAProxy's round robin with the profile haproxy; all are
restarted one by one. HTTP/1.1 comes in pools of four; gRPC's round_robin has a connection to each replica, past the balancer. A client of HTTP
or gRPC asks every 5 s on each connection, which takes 50 ms. *Retried* are requests that crossed the end of an idle connection.`,
		head: []string{"clients", "peak of reconnects a second", "reconnects", "half without service for more than", "1 % for more than", "longest", "retried", "lost", "a drain takes"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.PeakReconnects), count(one.Reconnects), span(one.Outages.Quantile(0.5)), span(one.Outages.Quantile(0.99)), span(one.Longest),
				count(one.Retried), count(one.Loss()), span(one.Drain)}
		},
	}
	every, takes := 5*time.Second, 50*time.Millisecond
	n := scaled(200_000, scale)
	for _, c := range []sim.Clients{
		{Name: "WebSocket, a page's setTimeout of 1 s", Kind: sim.WebSocket, Count: n, Backoff: sim.BackoffPage},
		{Name: "WebSocket, 1 s doubled up to 30 s", Kind: sim.WebSocket, Count: n, Backoff: sim.BackoffExponential},
		{Name: "WebSocket, socket.io: 1 s ± 50 % up to 5 s", Kind: sim.WebSocket, Count: n, Backoff: sim.BackoffJitter},
		{Name: "gRPC, one connection", Kind: sim.GRPC, Count: n, Backoff: sim.BackoffGRPC, Every: every, Takes: takes},
		{Name: "gRPC, one connection, calls of 20 s", Kind: sim.GRPC, Count: n, Backoff: sim.BackoffGRPC, Every: every, Takes: 20 * time.Second},
		{Name: "gRPC, round_robin", Kind: sim.GRPC, Count: max(1, n/20), Links: 20, Direct: true, Backoff: sim.BackoffGRPC, Every: every, Takes: takes},
		{Name: "HTTP/2", Kind: sim.HTTP2, Count: n, Every: every, Takes: takes},
		{Name: "HTTP/1.1, pools of 4", Kind: sim.HTTP1, Count: max(1, n/4), Links: 4, Every: every, Takes: takes},
	} {
		c.TLS = sim.TLSFull
		s := rolling([]sim.Clients{c}, sim.HAProxy(sim.RoundRobin), profile("haproxy"))
		s.Replicas = 20
		q.rows = append(q.rows, row{labels: []string{c.Name}, scenarios: []sim.Scenario{s}})
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "kinds", title: "A drain with spread 10 s, by kind of client", x: "seconds since the SIGTERM", y: "reconnects a second"}
		for _, i := range []int{0, 2, 3, 6, 7} {
			c.lines = append(c.lines, line{[]string{0: "WebSocket, 1 s", 2: "WebSocket, jitter", 3: "gRPC", 6: "HTTP/2", 7: "HTTP/1.1"}[i], perSecond(q.rows[i].results[0].Series, 30)})
		}
		return []chart{c}
	}
	return q
}

// growth is a fleet that becomes twice as large.
func growth(scale float64) *question {
	q := &question{
		name:  "growth",
		title: "from 50 to 100 replicas: when does the fullest one hold less than 1.2 of the mean?",
		text: `
A hundred thousand connections. *Began together*: they were all opened within the last minute, as they are behind an outage; *over time*: over
the last max_age. The peak is that of reconnects a second, of which 100,000 divided by max_age is the least. Without
max_age a new replica is filled by new clients alone.`,
		head: []string{"max_age", "jitter", "round robin, began together", "peak", "round robin, over time", "peak",
			"least connections, began together", "peak", "least connections, over time", "peak"},
		cells: func(r row) []string {
			var cells []string
			for _, one := range r.results {
				cells = append(cells, span(one.BalancedAfter), count(one.PeakReconnects))
			}
			return cells
		},
	}
	for _, age := range []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 0} {
		for _, jitter := range []float64{0, 0.1, 0.25, 0.5} {
			if age == 0 && jitter > 0 {
				continue
			}
			r := row{labels: []string{whole(age), fmt.Sprintf("%.0f %%", jitter*100)}}
			if age == 0 {
				r.labels = []string{"none", ""}
			}
			for _, p := range []sim.Policy{sim.RoundRobin, sim.LeastConn} {
				for _, together := range []bool{true, false} {
					opened := age
					if together {
						opened = min(age, time.Minute)
					}
					end := 2 * age
					if age == 0 {
						end = 48 * time.Hour
					}
					r.scenarios = append(r.scenarios, sim.Scenario{
						Seed: seed, Replicas: 50, Processors: 1, Drain: profile(""), StartTime: startTime, RTT: rtt, Balancer: sim.HAProxy(p),
						Clients: []sim.Clients{{
							Kind: sim.GRPC, Count: scaled(channels, scale), Backoff: sim.BackoffGRPC, TLS: sim.TLSFull,
							Every: 10 * time.Second, Takes: 50 * time.Millisecond, Age: age, Jitter: jitter, Opened: opened,
						}},
						Events: []sim.Event{{At: begins, Add: 50}}, Until: begins + end, Balanced: 1.2, SampleEvery: end / 400,
					})
				}
			}
			q.rows = append(q.rows, r)
		}
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "growth", title: "From 50 to 100 replicas, max_age 30 min, round robin", x: "minutes", y: "fullest replica, in means", limit: 1.2}
		for _, r := range q.rows {
			if r.labels[0] != "30 min" {
				continue
			}
			for i, name := range []string{"together", "over time"} {
				l := line{name: name + ", jitter " + r.labels[1]}
				if i == 1 && r.labels[1] != "10 %" {
					continue
				}
				for k, v := range r.results[i].Fullest {
					l.points = append(l.points, [2]float64{(time.Duration(k) * r.scenarios[i].SampleEvery).Minutes(), v})
				}
				c.lines = append(c.lines, l)
			}
		}
		return []chart{c}
	}
	return q
}

// death is a replica that ends without a drain.
func death(scale float64) *question {
	q := &question{
		name:  "death",
		title: "a replica dies",
		text: `
The fleet of ` + "`restart`" + `, and one replica of it: its process dies, so that the kernel resets what was connected and refuses what comes, or its
host falls silent. WebSocket clients ping every 30 s and wait 10 s, gRPC's every 30 s and wait 20 s.`,
		head: []string{"what dies", "balancer", "clients", "cut", "failed attempts", "peak of reconnects a second", "peak of handshakes on a replica, in processors",
			"half without service for more than", "1 % for more than", "longest"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.Cut), count(one.Refused), count(one.PeakReconnects), load(one.PeakHandshake), span(one.Outages.Quantile(0.5)),
				span(one.Outages.Quantile(0.99)), span(one.Longest)}
		},
	}
	cutting := sim.HAProxy(sim.LeastConn)
	cutting.CutsDown, cutting.Name = true, "HAProxy, shutdown-sessions"
	nlb, nlbCuts := sim.NLB(false), sim.NLB(true)
	nlbCuts.Name = "NLB, which cuts"
	for _, silent := range []bool{false, true} {
		for _, b := range []sim.Balancer{sim.HAProxy(sim.RoundRobin), sim.HAProxy(sim.LeastConn), cutting, nlb, nlbCuts, sim.KubeProxy(100)} {
			for _, jitter := range []bool{false, true} {
				back, clients := sim.BackoffPage, "1 s"
				if jitter {
					back, clients = sim.BackoffJitter, "1 s ± 50 %"
				}
				what := "process"
				if silent {
					what = "host"
				}
				s := rolling(mixed(scale, sim.TLSFull, back), b, profile("haproxy"))
				s.Events = []sim.Event{{At: begins, Kill: &sim.Kill{Replica: 7, Silent: silent, Restarts: !silent}}}
				q.rows = append(q.rows, row{labels: []string{what, b.Name + ", " + b.Policy.String(), clients}, scenarios: []sim.Scenario{s}})
			}
		}
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "death", title: "A replica with 11,000 clients dies", x: "seconds", y: "reconnects a second", logY: true}
		for _, i := range []int{0, 1, 12, 13, 16, 20} {
			r := q.rows[i]
			c.lines = append(c.lines, line{r.labels[0] + ", " + r.scenarios[0].Balancer.Name + ", " + r.labels[2], perSecond(r.results[0].Series, 70)})
		}
		return []chart{c}
	}
	return q
}

// news are clients that open a connection for each request: 200 a second on each of ten
// replicas.
func news(scale float64) []sim.Clients {
	return []sim.Clients{{Kind: sim.HTTP1New, Count: scaled(2_000, scale), Every: time.Second, Takes: 10 * time.Millisecond, TLS: sim.TLSFull}}
}

// doors are the balancers that have to notice.
func doors() []sim.Balancer {
	strict := sim.HAProxy(sim.RoundRobin)
	strict.Retries, strict.Name = 0, "HAProxy, no retries"
	return []sim.Balancer{strict, sim.HAProxy(sim.RoundRobin), sim.KubeProxy(100), sim.NLB(false)}
}

// late is a balancer that notices later than the server closes its doors.
func late(scale float64) *question {
	q := &question{
		name:  "late",
		title: "a balancer that notices late",
		text: `
Ten replicas, each with 200 new connections a second; two are restarted, one after the other. The numbers are connections lost, for
each restart, by the drain.delay that the server gives the balancer to notice. HAProxy's second attempts hide what a replica refuses.`,
		head: []string{"drain.delay"},
		cells: func(r row) []string {
			var cells []string
			for _, one := range r.results {
				cells = append(cells, count(one.Loss()/2))
			}
			return cells
		},
	}
	for _, b := range doors() {
		q.head = append(q.head, b.Name)
	}
	for _, delay := range []int{0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30} {
		r := row{labels: []string{fmt.Sprintf("%d s", delay)}}
		for _, b := range doors() {
			d := profile("nlb")
			d.Delay, d.Spread = time.Duration(delay)*time.Second, time.Second
			s := rolling(news(scale), b, d)
			s.Replicas, s.Processors = 10, 4
			s.StartTime = 30 * time.Second // so that the balancer notices in any case
			s.Events[0].Roll.Replicas = 2
			r.scenarios = append(r.scenarios, s)
		}
		q.rows = append(q.rows, r)
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "late", title: "Connections lost in a restart, of 200 new ones a second", x: "drain.delay in seconds", y: "lost"}
		for i, name := range q.head[1:] {
			l := line{name: name}
			for _, r := range q.rows {
				l.points = append(l.points, [2]float64{r.scenarios[i].Drain.Delay.Seconds(), float64(r.results[i].Loss()) / 2})
			}
			c.lines = append(c.lines, l)
		}
		return []chart{c}
	}
	return q
}

// accept is drain.accept_during_delay.
func accept(scale float64) *question {
	q := &question{
		name:  "accept",
		title: "accept_during_delay on and off",
		text: `
The replicas of ` + "`late`" + `, each with 10,000 WebSockets besides, and each balancer's own profile. On: the server serves new connections
until the delay is over, then it closes its doors and tells its clients. Off: it does both at once, and the delay comes behind.`,
		head: []string{"balancer", "profile", "accept_during_delay", "failed attempts", "cut", "half without service for more than", "longest", "a drain takes"},
		cells: func(r row) []string {
			one := r.results[0]
			return []string{count(one.Refused), count(one.Cut), span(one.Outages.Quantile(0.5)), span(one.Longest), span(one.Drain)}
		},
	}
	for i, b := range doors() {
		for _, on := range []bool{true, false} {
			name := []string{"haproxy", "haproxy", "k8s", "nlb"}[i]
			d := profile(name)
			d.AcceptDuringDelay = on
			s := rolling(append(news(scale), sim.Clients{
				Kind: sim.WebSocket, Count: scaled(100_000, scale), Backoff: sim.BackoffJitter, TLS: sim.TLSFull,
			}), b, d)
			s.Replicas, s.Processors = 10, 4
			s.Events[0].Roll.Replicas = 2
			q.rows = append(q.rows, row{labels: []string{b.Name, name, map[bool]string{true: "on", false: "off"}[on]}, scenarios: []sim.Scenario{s}})
		}
	}
	q.charts = func(q *question) []chart {
		c := chart{file: "accept", title: "Failed attempts in two restarts", x: "balancer", y: "attempts", series: []string{"on", "off"}, bars: make([][]float64, 2)}
		for i, r := range q.rows {
			if i%2 == 0 {
				c.groups = append(c.groups, r.labels[0])
			}
			c.bars[i%2] = append(c.bars[i%2], float64(r.results[0].Refused))
		}
		return []chart{c}
	}
	return q
}
