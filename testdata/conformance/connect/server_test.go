package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"syscall"
	_ "unsafe" // for go:linkname

	"connectrpc.com/conformance/internal"
	"connectrpc.com/conformance/internal/app/grpcserver"
	"connectrpc.com/conformance/internal/app/referenceserver"
	conformancev1 "connectrpc.com/conformance/internal/gen/proto/go/connectrpc/conformance/v1"
	"connectrpc.com/conformance/internal/tracer"
	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // for the calls that are compressed

	"github.com/muxserve/muxserve/mux"
)

// faultsEnv names a directory: a server that ends in another way than it should leaves a file there.
const faultsEnv = "MUXSERVE_CONFORMANCE_FAULTS"

// serve is the main function of a server under test, which the suite's runner starts.
func serve(form string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch form {
	case "connect":
		return referenceserver.Run(ctx, []string{form}, os.Stdin, os.Stdout, os.Stderr)
	case "connect-muxed":
		return serveMuxed(ctx, connectOptions)
	case "grpc":
		return grpcserver.Run(ctx, []string{form}, os.Stdin, os.Stdout, os.Stderr)
	case "grpc-muxed":
		return serveMuxed(ctx, grpcOptions)
	case "grpc-muxed-shared":
		return serveMuxed(ctx, func(ctx context.Context, request *conformancev1.ServerCompatRequest) (served, error) {
			s, err := grpcOptions(ctx, request)
			s.options = append(s.options, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = "shared" }))
			return s, err
		})
	}
	return fmt.Errorf("%q is no form of server", form)
}

// served is what a server behind the mux is made of.
type served struct {
	options     []mux.Option
	certificate []byte            // of a server with TLS, in PEM
	made        func(*mux.Server) // called before it serves
}

// serveMuxed serves what options returns for the runner's request until the context ends.
func serveMuxed(ctx context.Context, options func(context.Context, *conformancev1.ServerCompatRequest) (served, error)) error {
	codec := internal.NewCodec(false)
	request := new(conformancev1.ServerCompatRequest)
	if err := codec.NewDecoder(os.Stdin).DecodeNext(request); err != nil {
		return err
	}
	o, err := options(ctx, request)
	if err != nil {
		return err
	}
	s := mux.New(append(o.options, mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))...)
	if o.made != nil {
		o.made(s)
	}
	if err := s.Listen(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	address, ok := s.Addrs()[0].(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("%v is no TCP address", s.Addrs()[0])
	}
	response := &conformancev1.ServerCompatResponse{
		Host: address.IP.String(), Port: uint32(address.Port), PemCert: o.certificate,
	}
	if err := codec.NewEncoder(os.Stdout).Encode(response); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := <-done; !errors.Is(err, mux.ErrServerClosed) {
		return err
	}
	for name, pool := range s.Stats().Pools {
		if pool.Active != 0 {
			return fmt.Errorf("pool %s: %d connections are left", name, pool.Active)
		}
	}
	return nil
}

// connectOptions has the handler and the TLS configuration of the suite's connect-go server.
func connectOptions(ctx context.Context, request *conformancev1.ServerCompatRequest) (served, error) {
	reference, certificate, err := createServer(ctx, request, "127.0.0.1:0", "", "", false, internal.NewPrinter(os.Stderr), nil)
	if err != nil {
		return served{}, err
	}
	// It is a *stdHTTPServer, which has listened and is not exported.
	fields := reflect.ValueOf(reference).Elem()
	server := (*http.Server)(fields.FieldByName("svr").UnsafePointer())
	if err := reference.Close(); err != nil {
		return served{}, err
	}
	return served{
		options:     []mux.Option{mux.WithHandler(server.Handler), mux.WithTLS(server.TLSConfig)},
		certificate: certificate,
	}, nil
}

// grpcOptions registers the suite's service for grpc-go. It answers gRPC-Web as the suite's
// server does, by a wrapper around the *grpc.Server.
func grpcOptions(_ context.Context, request *conformancev1.ServerCompatRequest) (served, error) {
	if request.UseTls {
		return served{}, errors.New("the suite's grpc-go server has no TLS")
	}
	var web http.Handler
	return served{
		options: []mux.Option{
			mux.WithGRPC(func(r mux.GRPCRegistrar) {
				conformancev1.RegisterConformanceServiceServer(r, grpcserver.NewConformanceServiceServer())
			}, grpc.MaxRecvMsgSize(int(request.MessageReceiveLimit)),
				grpc.ChainUnaryInterceptor(serverNameUnary), grpc.ChainStreamInterceptor(serverNameStream)),
			mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { web.ServeHTTP(w, r) })),
		},
		made: func(s *mux.Server) {
			info, _ := s.ServerOf("grpc")
			native, _ := info.Native.(*grpc.Server)
			web = grpcweb.WrapServer(native, grpcweb.WithOriginFunc(func(string) bool { return true }))
		},
	}, nil
}

// httpServer has the methods of the suite's interface of that name.
type httpServer interface {
	Serve() error
	Shutdown(ctx context.Context) error
	Close() error
	Addr() string
}

//go:linkname createServer connectrpc.com/conformance/internal/app/referenceserver.createServer
func createServer(ctx context.Context, request *conformancev1.ServerCompatRequest, address, certFile, keyFile string,
	referenceMode bool, errs internal.Printer, trace *tracer.Tracer) (httpServer, []byte, error)

//go:linkname serverNameUnary connectrpc.com/conformance/internal/app/grpcserver.serverNameUnaryInterceptor
func serverNameUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error)

//go:linkname serverNameStream connectrpc.com/conformance/internal/app/grpcserver.serverNameStreamInterceptor
func serverNameStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error

// recordFault leaves a file for the test that has the server started.
func recordFault(form string, err error) {
	if dir := os.Getenv(faultsEnv); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d", form, os.Getpid())), []byte(err.Error()), 0o600)
	}
}
