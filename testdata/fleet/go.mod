module github.com/muxserve/muxserve/testdata/fleet

go 1.26.0

require github.com/muxserve/muxserve v0.0.0

replace github.com/muxserve/muxserve => ../..
