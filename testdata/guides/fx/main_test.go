package main

import (
	"net/http"
	"testing"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestFx(t *testing.T) {
	p := guide.Start(t)
	guide.Get(t, http.DefaultClient, "http://"+p.Addr+"/livez")
	if status := p.StopDuring(http.DefaultClient, "http://"+p.Addr+"/count"); status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
}
