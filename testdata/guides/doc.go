// Package guides has the programs of mux/EMBEDDING.md that need more modules than package mux
// has. Each directory is a program. Its test runs it as a process of its own, visits it with
// real clients, and stops it by SIGTERM while a request is under way, which has to end well.
package guides
