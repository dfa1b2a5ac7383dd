package protocols

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestLongCallsLeaveRoom has more calls wait than there are goroutines kept for calls; others are served all the same.
func TestLongCallsLeaveRoom(t *testing.T) {
	h2 := DefaultHTTP2Config()
	h2.MaxStreams = 2 * streamWorkers
	cc, err := grpc.NewClient(serveGRPC(t, endlessGRPC(), h2), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	for range streamWorkers + 1 {
		if _, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, waits); err != nil {
			t.Fatal(err)
		}
	}
	var answer wrapperspb.BytesValue
	if err := cc.Invoke(t.Context(), echoes, wrapperspb.Bytes([]byte{7}), &answer); err != nil || len(answer.GetValue()) != 7 {
		t.Errorf("a call behind long ones: %d bytes, %v", len(answer.GetValue()), err)
	}
}
