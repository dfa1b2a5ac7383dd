// Package upgrade replaces a running process by a new one that gets its listening
// sockets, so that not one connection is refused in between.
//
// The old process has an [Upgrader], and the new one a [Parent]. The new process is
// started with the sockets, a pipe and the old one's arguments and environment. It
// opens everything, serves, and says so through the pipe; until then both have the
// sockets and the old one serves as before. Then the old one leaves the sockets
// alone and drains. A new process that ends, or that says nothing for too long,
// changes nothing.
//
// github.com/cloudflare/tableflip does much of this. Not it, because:
//   - it does not tell the number of the new process, which the service manager has
//     to be told before the old one ends (MAINPID=, see [Parent.Tell]);
//   - it refuses an upgrade until the process before last has ended, which is as long
//     as the longest connection;
//   - it starts os.Args[0] as it was given, and that is not what runs where the name
//     was looked up in PATH or has been moved;
//   - it has one Upgrader in a process, for ever, so that nothing of it can be tested
//     beside anything else;
//   - a service manager's sockets (LISTEN_FDS) need the receiving half anyway, which is
//     package listeners' here, for both.
package upgrade
