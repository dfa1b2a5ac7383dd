package deploy

import (
	"crypto/tls"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// manifests are what "kubectl apply -k" sends, by kind.
type manifests struct {
	config     *corev1.ConfigMap
	deployment *appsv1.Deployment
	services   map[string]*corev1.Service
	budget     *policyv1.PodDisruptionBudget
	network    *networkingv1.NetworkPolicy
	monitor    *monitoringv1.ServiceMonitor
}

// readManifests runs kustomize, and decodes what comes out into the types of Kubernetes
// and of Prometheus' operator. Unknown and doubled fields are errors.
func readManifests(t *testing.T) manifests {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), recipes)
	if err != nil {
		t.Fatal(err)
	}
	m := manifests{services: map[string]*corev1.Service{}}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := strict.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", r.CurId(), err)
		}
		switch o := object.(type) {
		case *corev1.ConfigMap:
			m.config = o
		case *appsv1.Deployment:
			m.deployment = o
		case *corev1.Service:
			m.services[o.Name] = o
		case *policyv1.PodDisruptionBudget:
			m.budget = o
		case *networkingv1.NetworkPolicy:
			m.network = o
		case *monitoringv1.ServiceMonitor:
			m.monitor = o
		default:
			t.Fatalf("unexpected %s", kind)
		}
	}
	if m.config == nil || m.deployment == nil || len(m.services) != 2 || m.budget == nil || m.network == nil || m.monitor == nil {
		t.Fatalf("an object is missing: %+v", m)
	}
	return m
}

// TestKubernetesSecurity checks what the restricted Pod Security Standard asks for, and
// what goes beyond it.
func TestKubernetesSecurity(t *testing.T) {
	pod := readManifests(t).deployment.Spec.Template.Spec
	c := pod.Containers[0]
	uid, gid := numericUser(t, readDockerfile(t, recipes+"/Dockerfile")[1].only(t, "USER"))
	for what, ok := range map[string]bool{
		"one container":              len(pod.Containers) == 1 && len(pod.InitContainers) == 0,
		"not root":                   *pod.SecurityContext.RunAsNonRoot,
		"the image's user":           *pod.SecurityContext.RunAsUser == int64(uid) && *pod.SecurityContext.RunAsGroup == int64(gid),
		"a group that reads Secrets": *pod.SecurityContext.FSGroup == int64(gid),
		"seccomp":                    pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"no privileges are gained":   !*c.SecurityContext.AllowPrivilegeEscalation && c.SecurityContext.Privileged == nil,
		"a root that stays":          *c.SecurityContext.ReadOnlyRootFilesystem,
		"no capability":              slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(c.SecurityContext.Capabilities.Add) == 0,
		"no host namespace":          !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
		"no account":                 !*pod.AutomountServiceAccountToken,
		"no variables of Services":   !*pod.EnableServiceLinks,
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
	for _, v := range pod.Volumes {
		switch {
		case v.Secret != nil:
			if *v.Secret.DefaultMode&0o007 != 0 {
				t.Errorf("everybody may read the Secret %s", v.Secret.SecretName)
			}
		case v.ConfigMap == nil:
			t.Errorf("volume %s is neither ConfigMap nor Secret", v.Name)
		}
	}
}

// TestKubernetesMemory checks that Go collects garbage before the kernel kills, and that
// most of the memory is Go's.
func TestKubernetesMemory(t *testing.T) {
	c := readManifests(t).deployment.Spec.Template.Spec.Containers[0]
	i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "GOMEMLIMIT" })
	if i < 0 {
		t.Fatal("there is no GOMEMLIMIT")
	}
	// Go's unit MiB is Kubernetes' Mi.
	soft, err := resource.ParseQuantity(strings.TrimSuffix(c.Env[i].Value, "B"))
	if err != nil {
		t.Fatal(err)
	}
	hard := c.Resources.Limits.Memory().Value()
	if soft.Value() > hard*95/100 || soft.Value() < hard*80/100 {
		t.Errorf("GOMEMLIMIT %d is not between 80 %% and 95 %% of the limit %d", soft.Value(), hard)
	}
}

// TestKubernetesObjectsFit checks that selectors select, and that ports have the names
// that others use.
func TestKubernetesObjectsFit(t *testing.T) {
	m := readManifests(t)
	pod := m.deployment.Spec.Template
	admin := m.services["muxserve-admin"]
	selects := func(selector map[string]string, set map[string]string) bool {
		return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(set))
	}
	for what, ok := range map[string]bool{
		"the Deployment":               selects(m.deployment.Spec.Selector.MatchLabels, pod.Labels),
		"the Service":                  selects(m.services["muxserve"].Spec.Selector, pod.Labels),
		"the admin Service":            selects(admin.Spec.Selector, pod.Labels),
		"the disruption budget":        selects(m.budget.Spec.Selector.MatchLabels, pod.Labels),
		"the network policy":           selects(m.network.Spec.PodSelector.MatchLabels, pod.Labels),
		"the spread":                   selects(pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels, pod.Labels),
		"the monitor, of the admin's":  selects(m.monitor.Spec.Selector.MatchLabels, admin.Labels),
		"the monitor, of the others":   !selects(m.monitor.Spec.Selector.MatchLabels, m.services["muxserve"].Labels),
		"a budget of a pod at a time":  m.budget.Spec.MaxUnavailable.IntValue() == 1 && *m.deployment.Spec.Replicas > 1,
		"no Service with admin beside": len(m.services["muxserve"].Spec.Ports) == 1,
		"the monitor's port":           m.monitor.Spec.Endpoints[0].Port == admin.Spec.Ports[0].Name,
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}

	c := pod.Spec.Containers[0]
	names := map[string]bool{}
	for _, p := range c.Ports {
		names[p.Name] = true
	}
	used := []string{
		c.ReadinessProbe.HTTPGet.Port.StrVal, c.LivenessProbe.HTTPGet.Port.StrVal, admin.Spec.Ports[0].TargetPort.StrVal,
	}
	for _, s := range m.services {
		used = append(used, s.Spec.Ports[0].TargetPort.StrVal)
	}
	for _, rule := range m.network.Spec.Ingress {
		used = append(used, rule.Ports[0].Port.StrVal)
		if rule.Ports[0].Port.StrVal == "admin" && len(rule.From) == 0 {
			t.Error("everybody reaches the admin port")
		}
	}
	for _, name := range used {
		if !names[name] {
			t.Errorf("no port of the container has the name %q", name)
		}
	}
	if !slices.Contains(m.network.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) || len(m.network.Spec.Egress) > 0 {
		t.Error("the pods may connect to others")
	}
}

// TestKubernetesRuns runs the image's binary with the arguments and files of the pod, and
// asks it as the kubelet, Prometheus and a client do.
func TestKubernetesRuns(t *testing.T) {
	m := readManifests(t)
	final, dir := image(t)
	pod := m.deployment.Spec.Template.Spec
	c := pod.Containers[0]
	if len(c.Command) > 0 {
		t.Fatalf("the command is not the image's: %q", c.Command)
	}
	mounts := t.TempDir()
	pool := writeCertificate(t, mountOf(t, mounts, c, "tls"))
	const token = "s3cr3t-of-the-admin"
	write(t, filepath.Join(mountOf(t, mounts, c, "admin-token"), m.monitor.Spec.Endpoints[0].Authorization.Credentials.Key), token+"\n")
	service, admin := freeAddress(t), freeAddress(t)
	_, servicePort, _ := net.SplitHostPort(service)
	_, adminPort, _ := net.SplitHostPort(admin)
	// The machine has neither the pod's mounts nor, perhaps, its ports.
	place := strings.NewReplacer("/run/secrets/", mounts+"/run/secrets/", "/etc/muxserve", mounts+"/etc/muxserve",
		`":8080"`, `"127.0.0.1:`+servicePort+`"`, "$(POD_IP):8081", "127.0.0.1:"+adminPort)
	for name, text := range m.config.Data {
		write(t, filepath.Join(mountOf(t, mounts, c, "config"), name), place.Replace(text))
	}
	args := final.exec(t, "ENTRYPOINT")[1:]
	for _, a := range c.Args {
		args = append(args, place.Replace(a))
	}
	// The pod's environment, in which the address is in the arguments by now.
	env := []string{}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env = append(env, v.Name+"="+v.Value)
		}
	}
	binary := filepath.Join(dir, final.exec(t, "ENTRYPOINT")[0])
	check := exec.CommandContext(t.Context(), binary, append([]string{"check"}, args...)...)
	check.Env = env
	if out, err := check.CombinedOutput(); err != nil || strings.Contains(string(out), "warning") {
		t.Fatalf("check: %v\n%s", err, out)
	}

	cmd := exec.Command(binary, args...) //nolint:noctx // start ends it.
	cmd.Env = env
	start(t, cmd, admin)
	for _, path := range []string{c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path} {
		if code, body := get(t, plain, "http://"+admin+path, ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := get(t, plain, "http://"+admin+m.monitor.Spec.Endpoints[0].Path, token); code != http.StatusOK {
		t.Errorf("the scraper gets %d", code)
	}
	for _, path := range []string{"/connections", "/config", m.monitor.Spec.Endpoints[0].Path} {
		if code, _ := get(t, plain, "http://"+admin+path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s without the token: %d", path, code)
		}
	}
	if code, _ := ask(t, plain, http.MethodPost, "http://"+admin+"/config/reload", ""); code != http.StatusUnauthorized {
		t.Errorf("a change without the token: %d", code)
	}
	if code, body := ask(t, plain, http.MethodPost, "http://"+admin+"/config/reload", token); code != http.StatusOK {
		t.Errorf("a change with the token: %d %s", code, body)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer client.CloseIdleConnections()
	if code, body := get(t, client, "https://"+service+"/echo", ""); code != http.StatusOK {
		t.Errorf("/echo: %d %s", code, body)
	}
}

// mountOf returns the directory that stands for a mount of the container.
func mountOf(t *testing.T, dir string, c corev1.Container, volume string) string {
	t.Helper()
	i := slices.IndexFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool { return v.Name == volume })
	if i < 0 {
		t.Fatalf("the volume %s is not mounted", volume)
	}
	return filepath.Join(dir, c.VolumeMounts[i].MountPath)
}
