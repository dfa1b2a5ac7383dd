// Package demov1 is the generated code of muxserve's demo echo service,
// muxserve.demo.v1.Echo.
//
// To generate it anew, install protoc 3.21 or newer, protoc-gen-go v1.36 and
// protoc-gen-go-grpc v1.6, and run go generate.
package demov1

// The file is named from the module's root, so that its name is unique among
// all the descriptors that a program may register.
//go:generate protoc --proto_path=../../../.. --go_out=../../../.. --go_opt=paths=source_relative --go-grpc_out=../../../.. --go-grpc_opt=paths=source_relative cmd/muxserve/demo/v1/echo.proto
