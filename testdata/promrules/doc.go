// Package promrules holds the alerts and the dashboard of muxserve to the grammar
// of Prometheus' own parser. That the metrics in them exist is the business of
// the tests beside the admin listener. It is a module of its own because the parser
// brings more modules than the server needs.
package promrules
