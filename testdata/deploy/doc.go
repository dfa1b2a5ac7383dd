// Package deploy tests the recipes of cmd/muxserve/deploy as far as a machine without
// Docker, a cluster and a running systemd can: it builds the image's stages and runs the
// binary in them, reads the manifests with the types of Kubernetes, runs the binary with
// what the manifests, the unit and HAProxy's configuration give it, and builds twice.
package deploy
