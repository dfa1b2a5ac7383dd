//go:build ignore

// Command generate writes gateway.pb.gw.go: what protoc-gen-grpc-gateway makes of grpc-go's
// test service and api.yaml. It takes the place of protoc, which is not needed because the
// service's descriptor is in its Go package.
package main

import (
	"bytes"
	"log"
	"os"
	"os/exec"
	"strings"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	file := grpc_testing.File_grpc_testing_test_proto
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file.Path()},
		Parameter:      proto.String("standalone=true,grpc_api_configuration=api.yaml"),
	}
	seen := make(map[string]bool)
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(f))
		*request.Parameter += ",M" + f.Path() + "=google.golang.org/grpc/interop/grpc_testing"
	}
	add(file)
	in, err := proto.Marshal(request)
	if err != nil {
		log.Fatal(err)
	}
	plugin := exec.Command("go", "run", "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.30.0")
	plugin.Stdin, plugin.Stderr = bytes.NewReader(in), os.Stderr
	out, err := plugin.Output()
	if err != nil {
		log.Fatal(err)
	}
	response := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(out, response); err != nil {
		log.Fatal(err)
	}
	if response.Error != nil {
		log.Fatal(response.GetError())
	}
	code := strings.Replace(response.File[0].GetContent(), "package grpc_testing", "package gateway", 1)
	if err := os.WriteFile("gateway.pb.gw.go", []byte(code), 0o666); err != nil {
		log.Fatal(err)
	}
}
