// Package gateway is what grpc-gateway generates for grpc-go's test service.
package gateway

//go:generate go run generate.go
