// Package stress shows, by its tests, that what a peer does to muxserve stays
// within bounds: memory under floods, time under slow clients, handlers under
// Rapid Reset, processor time without file descriptors. Most of it asks a real
// muxserve in a process of its own and measures that from outside. See README.md
// for the short form, the long one and the figures.
package stress
