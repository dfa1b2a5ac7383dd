// Package transparency runs programs twice, on plain net/http and grpc-go and behind the mux,
// and compares what their clients see. The programs use the routers and libraries that
// services are written with, which look for more in a ResponseWriter than its three methods.
//
// A difference fails, unless the table in differences_test.go has it and says why.
// mux/COMING_FROM.md has the same table. A row of it that no comparison shows fails as well.
package transparency
