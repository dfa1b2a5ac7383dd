package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// upgrades replaces a muxserve in place again and again, under load and without
// a balancer.
func upgrades(ctx context.Context, o *options) error {
	return underLoad(ctx, o, "upgrades", true, func(l *lineage) error {
		for i := range o.upgrades {
			if _, err := l.upgrade(ctx); err != nil {
				return fmt.Errorf("upgrade %d: %w", i+1, err)
			}
		}
		return nil
	})
}

// underLoad runs do while clients of all kinds ask the lineage, and prints their figures.
func underLoad(ctx context.Context, o *options, name string, told bool, do func(*lineage) error) error {
	l, err := startLineage(ctx, o, name)
	if err != nil {
		return err
	}
	defer l.close()
	clients, rows, err := newClients(ctx, l.service.String)
	if err != nil {
		return err
	}
	load := startLoad(ctx, o.rate, clients)
	started := time.Now()
	err = do(l)
	load.finish()
	fmt.Fprintf(o.out, "%s: %v\n", name, time.Since(started).Round(time.Second))
	err = errors.Join(err, rows.write(o.out, name))
	if told {
		err = errors.Join(err, rows.toldOfAll())
	}
	return err
}

// upgrade replaces the current process, and returns how long it took until the
// new one had taken over.
func (l *lineage) upgrade(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	if err := l.request(); err != nil {
		return 0, err
	}
	pid, err := l.waitUpgraded(ctx)
	if err != nil {
		return 0, err
	}
	took := time.Since(started)
	return took, l.succeed(ctx, pid)
}

// succeed waits until the current process has drained, and makes pid the current one.
func (l *lineage) succeed(ctx context.Context, pid int) error {
	state, err := l.waitEnded(ctx, pid)
	if err != nil {
		return err
	}
	if state.ExitCode() != 0 {
		return fmt.Errorf("the old process: %s\n%s", state, l.tail())
	}
	return nil
}

// killsPerUpgrades is how many upgrades stand for one of each kind of kill.
const killsPerUpgrades = 5

// killChild kills new processes at random moments before they are ready. The
// old one must serve on as if nothing had happened.
func killChild(ctx context.Context, o *options) error {
	return underLoad(ctx, o, "kill child", false, func(l *lineage) error {
		life, err := l.upgrade(ctx)
		if err != nil {
			return err
		}
		killed, late := 0, 0
		for killed < max(1, o.upgrades/killsPerUpgrades) {
			moment := rand.N(life) //nolint:gosec // A moment, no secret.
			ok, err := l.killChild(ctx, moment)
			if err != nil {
				return err
			}
			if ok {
				killed++
			} else {
				late++
				life = max(moment, time.Millisecond) // It was ready by then, and the next one will be.
			}
		}
		fmt.Fprintf(o.out, "%d new processes killed before they were ready; %d were ready first and took over\n", killed, late)
		return nil
	})
}

// settleTime is more than the old process needs to see that the new one is ready.
const settleTime = 200 * time.Millisecond

// killChild begins an upgrade and kills the new process at that moment of its
// life, unless it is ready by then, and reports whether it did.
func (l *lineage) killChild(ctx context.Context, moment time.Duration) (killed bool, err error) {
	if err := l.request(); err != nil {
		return false, err
	}
	child, err := l.waitChild(ctx)
	if err != nil {
		return false, err
	}
	time.Sleep(moment)
	// It is stopped first: whether it is ready must not change while we look.
	// That it is gone means that it was not the new process; see child.
	if err := syscall.Kill(child, syscall.SIGSTOP); err == nil {
		time.Sleep(settleTime)
		pid, _, err := l.outcome()
		if err != nil {
			return false, err
		}
		end := syscall.SIGKILL
		if pid != 0 {
			end = syscall.SIGCONT
		}
		if err := syscall.Kill(child, end); err != nil {
			return false, fmt.Errorf("restarts: %w", os.NewSyscallError("kill", err))
		}
	}
	var pid int
	err = eventually(ctx, "the old process gives the upgrade up, or has carried it out", func() (bool, error) {
		pid, killed, err = l.outcome()
		return killed || pid != 0, err
	})
	if err != nil || killed {
		return killed, err
	}
	return false, l.succeed(ctx, pid)
}

// killParent kills old processes after the new one has taken over and all
// clients have left but one, which holds the old one's drain up. What is in
// flight on a process that is killed is lost by nature; nothing else may be.
func killParent(ctx context.Context, o *options) error {
	return underLoad(ctx, o, "kill parent", true, func(l *lineage) error {
		for range max(1, o.upgrades/killsPerUpgrades) {
			if err := l.killParent(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// killParent upgrades and kills the old process.
func (l *lineage) killParent(ctx context.Context) error {
	stay, err := newOverstayer(ctx, "grpc", l.service.String, connectGRPC)
	if err != nil {
		return err
	}
	defer stay.close()
	if err := l.request(); err != nil {
		return err
	}
	pid, err := l.waitUpgraded(ctx)
	if err != nil {
		return err
	}
	err = eventually(ctx, "all but one have left the old process", func() (bool, error) {
		n, err := established(l.current.Pid, l.service.Number)
		return n == 1, err
	})
	if err != nil {
		return err
	}
	if err := l.current.Kill(); err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	_, err = l.waitEnded(ctx, pid)
	return err
}
