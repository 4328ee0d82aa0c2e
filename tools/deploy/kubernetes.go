package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// variants are what can be applied, each with the component that is monitoring.
var variants = []string{"base", "overlays/single", "overlays/nats"}

// serverName is the name of notebookd's own workload and ConfigMap.
const serverName = "notebookd"

func checkKubernetes(r *report, root string) {
	dir := filepath.Join(root, "deploy", "kubernetes")
	var first *serverConfig
	for _, variant := range variants {
		m := &manifests{report: r, where: variant, configMaps: map[string]corev1.ConfigMap{}}
		m.build(filepath.Join(dir, variant))
		m.build(filepath.Join(dir, "monitoring"))
		m.checkAll()
		if m.config == nil {
			r.problem(variant, "there is no %s", serverName)
			continue
		}
		if first == nil {
			first = m.config
		}
		r.that(!m.config.differs(first), variant, "notebookd.yaml differs from that of the base in more than the store")
	}
}

// manifests is everything that one variant applies.
type manifests struct {
	*report
	where string

	workloads   []workload
	configMaps  map[string]corev1.ConfigMap
	services    []corev1.Service
	accounts    []corev1.ServiceAccount
	claims      []corev1.PersistentVolumeClaim
	budgets     []policyv1.PodDisruptionBudget
	policies    []networkingv1.NetworkPolicy
	monitors    []monitoringv1.ServiceMonitor
	config      *serverConfig // of notebookd
	configMount string        // where it is, in the container
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	name     string
	replicas int32
	selector *metav1.LabelSelector
	template corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
	// alone says that the old pod is gone before the new one comes.
	alone bool
}

// build adds what kustomize makes of a directory. Every field must be known to
// the type of its kind.
func (m *manifests) build(dir string) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		m.problem(m.where, "%v", err)
		return
	}
	for _, res := range made.Resources() {
		data, err := res.AsYAML()
		if err != nil {
			m.problem(m.where, "%v", err)
			continue
		}
		where := fmt.Sprintf("%s: %s %s", m.where, res.GetKind(), res.GetName())
		if err := m.add(res.GetApiVersion()+"/"+res.GetKind(), data); err != nil {
			m.problem(where, "%v", err)
		}
	}
}

// decode decodes strictly: an unknown field is an error.
func decode[T any](data []byte) (T, error) {
	var v T
	err := yaml.UnmarshalStrict(data, &v)
	return v, err
}

func (m *manifests) add(kind string, data []byte) error {
	switch kind {
	case "apps/v1/Deployment":
		d, err := decode[appsv1.Deployment](data)
		m.workloads = append(m.workloads, workload{
			name: d.Name, replicas: count(d.Spec.Replicas), selector: d.Spec.Selector, template: d.Spec.Template,
			alone: d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType,
		})
		return err
	case "apps/v1/StatefulSet":
		s, err := decode[appsv1.StatefulSet](data)
		m.workloads = append(m.workloads, workload{
			name: s.Name, replicas: count(s.Spec.Replicas), selector: s.Spec.Selector, template: s.Spec.Template,
			claims: s.Spec.VolumeClaimTemplates, alone: true,
		})
		return err
	case "v1/ConfigMap":
		c, err := decode[corev1.ConfigMap](data)
		m.configMaps[c.Name] = c
		return err
	case "v1/Service":
		return collect(data, &m.services)
	case "v1/ServiceAccount":
		return collect(data, &m.accounts)
	case "v1/PersistentVolumeClaim":
		return collect(data, &m.claims)
	case "policy/v1/PodDisruptionBudget":
		return collect(data, &m.budgets)
	case "networking.k8s.io/v1/NetworkPolicy":
		return collect(data, &m.policies)
	case "monitoring.coreos.com/v1/ServiceMonitor":
		return collect(data, &m.monitors)
	case "monitoring.coreos.com/v1/PrometheusRule":
		_, err := decode[monitoringv1.PrometheusRule](data)
		return err
	case "v1/Namespace":
		n, err := decode[corev1.Namespace](data)
		m.that(n.Labels["pod-security.kubernetes.io/enforce"] == "restricted", m.where, "the namespace does not enforce restricted pods")
		return err
	default:
		return fmt.Errorf("a kind that is not checked: %s", kind)
	}
}

func collect[T any](data []byte, list *[]T) error {
	v, err := decode[T](data)
	*list = append(*list, v)
	return err
}

func count(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

func (m *manifests) checkAll() {
	for _, w := range m.workloads {
		where := m.where + ": " + w.name
		m.checkPod(where, w)
		m.that(matches(w.selector, w.template.Labels), where, "its selector does not match its pods")
		for _, c := range w.template.Spec.TopologySpreadConstraints {
			m.that(matches(c.LabelSelector, w.template.Labels), where, "the spread over %s does not count its pods", c.TopologyKey)
		}
		if w.replicas > 1 {
			m.that(len(w.template.Spec.TopologySpreadConstraints) > 0, where, "its replicas may all be on one node")
			m.that(slices.ContainsFunc(m.budgets, func(b policyv1.PodDisruptionBudget) bool {
				return matches(b.Spec.Selector, w.template.Labels)
			}), where, "no PodDisruptionBudget")
		}
		m.that(slices.ContainsFunc(m.policies, func(p networkingv1.NetworkPolicy) bool {
			return matches(&p.Spec.PodSelector, w.template.Labels) && len(p.Spec.PolicyTypes) == 2
		}), where, "no NetworkPolicy for both ways")
		if w.name == serverName {
			m.checkServer(where, w)
		}
	}
	m.checkServices()
	m.checkPolicies()
	m.checkMonitors()
	for _, b := range m.budgets {
		where := m.where + ": PodDisruptionBudget " + b.Name
		m.that(len(m.selected(b.Spec.Selector)) == 1, where, "it does not select one workload")
		m.that(b.Spec.MaxUnavailable != nil && b.Spec.MaxUnavailable.IntValue() > 0, where, "it lets no node be drained")
	}
}

func matches(selector *metav1.LabelSelector, of map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(of))
}

// selected returns the workloads whose pods a selector selects.
func (m *manifests) selected(selector *metav1.LabelSelector) []workload {
	var out []workload
	for _, w := range m.workloads {
		if matches(selector, w.template.Labels) {
			out = append(out, w)
		}
	}
	return out
}

// checkPod checks what every pod must be: bound, probed, and without any right
// that it has no use for.
func (m *manifests) checkPod(where string, w workload) {
	pod := w.template.Spec
	s := pod.SecurityContext
	if s == nil {
		s = &corev1.PodSecurityContext{}
	}
	m.that(s.RunAsNonRoot != nil && *s.RunAsNonRoot, where, "it may run as root")
	m.that(s.RunAsUser != nil && *s.RunAsUser != 0, where, "no user by number")
	m.that(s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, where, "no seccomp profile")
	m.that(pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken, where, "it gets a token of its account")
	m.that(!pod.HostNetwork && !pod.HostPID && !pod.HostIPC, where, "it is in a namespace of the host")
	m.that(pod.TerminationGracePeriodSeconds != nil, where, "no terminationGracePeriodSeconds")
	m.that(slices.ContainsFunc(m.accounts, func(a corev1.ServiceAccount) bool {
		return a.Name == pod.ServiceAccountName && a.AutomountServiceAccountToken != nil && !*a.AutomountServiceAccountToken
	}), where, "no account without a token of its own")
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		m.checkContainer(where+": container "+c.Name, c)
	}
	m.checkVolumes(where, w)
}

func (m *manifests) checkContainer(where string, c corev1.Container) {
	s := c.SecurityContext
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	m.that(s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem, where, "its root can be written")
	m.that(s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation, where, "it may gain rights")
	m.that(s.Privileged == nil || !*s.Privileged, where, "it is privileged")
	m.that(s.RunAsUser == nil && s.RunAsNonRoot == nil, where, "it is another user than its pod says")
	m.that(s.Capabilities != nil && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) && len(s.Capabilities.Add) == 0,
		where, "it has capabilities")
	name, tag, hasTag := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
	m.that(name != "" && hasTag && tag != "latest", where, "its image %q has no fixed tag or digest", c.Image)
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		m.that(!list.Cpu().IsZero() && !list.Memory().IsZero(), where, "no request or limit of CPU and memory")
	}
	m.checkMemory(where, c)
	for what, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			m.problem(where, "no %s probe over HTTP", what)
			continue
		}
		m.that(hasPort(c.Ports, probe.HTTPGet.Port), where, "the %s probe asks a port that it has not: %s", what, probe.HTTPGet.Port.String())
	}
}

// checkMemory: the Go runtime must know a limit below the one at which it is killed.
func (m *manifests) checkMemory(where string, c corev1.Container) {
	for _, env := range c.Env {
		if env.Name != "GOMEMLIMIT" {
			continue
		}
		limit, err := resource.ParseQuantity(strings.TrimSuffix(env.Value, "B"))
		m.that(err == nil && limit.Cmp(*c.Resources.Limits.Memory()) < 0, where, "GOMEMLIMIT is not below the limit of memory")
		return
	}
	m.problem(where, "no GOMEMLIMIT")
}

func hasPort(ports []corev1.ContainerPort, port intstr.IntOrString) bool {
	return slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool {
		return port.Type == intstr.String && p.Name == port.StrVal || port.Type == intstr.Int && p.ContainerPort == port.IntVal
	})
}

// ports returns the ports of a workload's containers.
func (w workload) ports() []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range w.template.Spec.Containers {
		out = append(out, c.Ports...)
	}
	return out
}

// checkVolumes: every mount has a volume, every volume a mount, and what a volume is
// made of is there.
func (m *manifests) checkVolumes(where string, w workload) {
	names := map[string]bool{}
	for _, claim := range w.claims {
		names[claim.Name] = false
	}
	for _, v := range w.template.Spec.Volumes {
		names[v.Name] = false
		if v.ConfigMap != nil {
			m.checkItems(where, v.ConfigMap.Name, v.ConfigMap.Items)
		}
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				if source.ConfigMap != nil {
					m.checkItems(where, source.ConfigMap.Name, source.ConfigMap.Items)
				}
			}
		}
		if claim := v.PersistentVolumeClaim; claim != nil {
			m.that(slices.ContainsFunc(m.claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == claim.ClaimName }),
				where, "there is no PersistentVolumeClaim %s", claim.ClaimName)
			m.that(w.alone && w.replicas == 1, where, "two pods at a time may have the volume %s", v.Name)
		}
		m.that(v.HostPath == nil, where, "the volume %s is of the host", v.Name)
	}
	for _, c := range w.template.Spec.Containers {
		for _, mount := range c.VolumeMounts {
			_, ok := names[mount.Name]
			m.that(ok, where, "there is no volume %s", mount.Name)
			names[mount.Name] = true
			m.that(mount.SubPath == "", where, "the mount %s would not follow a change", mount.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		m.that(names[name], where, "the volume %s is not mounted", name)
	}
}

func (m *manifests) checkItems(where, name string, items []corev1.KeyToPath) {
	c, ok := m.configMaps[name]
	m.that(ok, where, "there is no ConfigMap %s", name)
	for _, item := range items {
		_, has := c.Data[item.Key]
		m.that(has, where, "the ConfigMap %s has no %s", name, item.Key)
	}
}

// files returns the files that a container sees in volumes of ConfigMaps and
// Secrets, with the content of those of ConfigMaps.
func (m *manifests) files(w workload, c corev1.Container) map[string]string {
	out := map[string]string{}
	for _, mount := range c.VolumeMounts {
		for _, v := range w.template.Spec.Volumes {
			if v.Name != mount.Name {
				continue
			}
			if v.ConfigMap != nil && len(v.ConfigMap.Items) == 0 {
				for key, value := range m.configMaps[v.ConfigMap.Name].Data {
					out[mount.MountPath+"/"+key] = value
				}
			}
			if v.Projected == nil {
				continue
			}
			for _, source := range v.Projected.Sources {
				if source.Secret != nil {
					for _, item := range source.Secret.Items {
						out[mount.MountPath+"/"+item.Path] = ""
					}
				}
			}
		}
	}
	return out
}

// checkServer: the workload of notebookd fits its configuration.
func (m *manifests) checkServer(where string, w workload) {
	pod := w.template.Spec
	if len(pod.Containers) != 1 {
		m.problem(where, "not one container")
		return
	}
	c := pod.Containers[0]
	files := m.files(w, c)
	at := slices.Index(c.Args, "-config")
	if at < 0 || at+1 >= len(c.Args) {
		m.problem(where, "no -config")
		return
	}
	m.configMount = c.Args[at+1]
	data, ok := files[m.configMount]
	if !ok || data == "" {
		m.problem(where, "the ConfigMap is not mounted at %s", m.configMount)
		return
	}
	m.config = parseServerConfig(m.report, m.where+": notebookd.yaml", []byte(data))
	cfg := m.config

	for door, port := range cfg.ports {
		m.that(hasPort(c.Ports, intstr.FromString(door)) && hasPort(c.Ports, intstr.FromInt32(port)), where,
			"its port %s is not %d, as the configuration says", door, port)
	}
	scheme := corev1.URISchemeHTTP
	if cfg.tls {
		scheme = corev1.URISchemeHTTPS
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe != nil && probe.HTTPGet != nil {
			m.that(probe.HTTPGet.Path == path && probe.HTTPGet.Scheme == scheme && probe.HTTPGet.Port.StrVal == "http", where,
				"no probe asks the HTTP door for %s as the configuration has it", path)
		}
	}

	named := map[string]bool{}
	for _, file := range cfg.files {
		named[file] = true
		_, ok := files[file]
		m.that(ok, where, "the configuration names %s, which is not mounted", file)
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		m.that(named[file] || file == m.configMount, where, "%s is mounted, and the configuration does not name it", file)
	}

	if cfg.dataDir != "" {
		m.that(slices.ContainsFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool {
			return v.MountPath == cfg.dataDir && !v.ReadOnly
		}), where, "no volume at %s, where the configuration stores", cfg.dataDir)
	}
	m.that(cfg.dataDir != "" || len(cfg.nats) > 0, where, "it stores nowhere")
	m.that(w.replicas == 1 || len(cfg.nats) > 0, where, "several replicas need NATS")
	if w.replicas > 1 && len(m.workloads) > 1 {
		for _, host := range cfg.nats {
			m.that(slices.ContainsFunc(m.services, func(s corev1.Service) bool { return s.Name == host }), where, "there is no Service %s", host)
		}
	}

	var sleep time.Duration
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
		sleep = time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	m.that(sleep > 0, where, "new connections still come when it stops: no sleep before")
	if grace := pod.TerminationGracePeriodSeconds; grace != nil {
		m.that(time.Duration(*grace)*time.Second >= sleep+cfg.drain+10*time.Second, where,
			"it is killed after %ds, before the drain of %s is over", *grace, cfg.drain)
	}
}

func (m *manifests) checkServices() {
	names := map[string]bool{}
	for _, s := range m.services {
		where := m.where + ": Service " + s.Name
		m.that(!names[s.Name], where, "twice")
		names[s.Name] = true
		pods := m.selected(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if len(pods) != 1 {
			m.problem(where, "it selects the pods of %d workloads", len(pods))
			continue
		}
		for _, p := range s.Spec.Ports {
			m.that(p.TargetPort.Type == intstr.String && hasPort(pods[0].ports(), p.TargetPort) && p.Name == p.TargetPort.StrVal, where,
				"its port %s is not that port of the pods", p.Name)
			m.that(hasPort(pods[0].ports(), intstr.FromInt32(p.Port)), where, "its port %s has another number than the pods'", p.Name)
		}
	}
}

func (m *manifests) checkPolicies() {
	for _, p := range m.policies {
		where := m.where + ": NetworkPolicy " + p.Name
		pods := m.selected(&p.Spec.PodSelector)
		if len(pods) != 1 {
			m.problem(where, "it selects the pods of %d workloads", len(pods))
			continue
		}
		for _, rule := range p.Spec.Ingress {
			m.that(len(rule.From) > 0 && len(rule.Ports) > 0, where, "it lets everybody in, or to every port")
			for _, port := range rule.Ports {
				m.that(port.Port != nil && hasPort(pods[0].ports(), *port.Port), where, "it lets in to a port that there is not")
			}
		}
		allowed := map[string]bool{}
		for _, rule := range p.Spec.Egress {
			m.that(len(rule.To) > 0 && len(rule.Ports) > 0, where, "it lets out to everywhere, or to every port")
			for _, port := range rule.Ports {
				if port.Port != nil && port.Protocol != nil {
					allowed[string(*port.Protocol)+" "+port.Port.String()] = true
				}
			}
		}
		need := []string{"UDP 53", "TCP 53"}
		if pods[0].name == serverName {
			need = append(need, "TCP 443") // the clouds
			if m.config != nil && len(m.config.nats) > 0 {
				need = append(need, "TCP 4222")
			} else {
				m.that(!allowed["TCP 4222"], where, "it lets out to a NATS that there is not")
			}
		}
		for _, port := range need {
			m.that(allowed[port], where, "it does not let out to %s", port)
		}
	}
}

func (m *manifests) checkMonitors() {
	for _, monitor := range m.monitors {
		where := m.where + ": ServiceMonitor " + monitor.Name
		var selected []corev1.Service
		for _, s := range m.services {
			if matches(&monitor.Spec.Selector, s.Labels) {
				selected = append(selected, s)
			}
		}
		if len(selected) != 1 {
			m.problem(where, "it selects %d Services: every pod would be read as often", len(selected))
			continue
		}
		m.that(len(monitor.Spec.Endpoints) == 1, where, "not one endpoint")
		for _, e := range monitor.Spec.Endpoints {
			m.that(slices.ContainsFunc(selected[0].Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port }), where,
				"the Service has no port %s", strconv.Quote(e.Port))
			m.that(e.Path == "/metrics", where, "metrics are not at %s", e.Path)
			m.that(e.Authorization != nil && e.Authorization.Credentials != nil, where, "no token")
			if m.config != nil && m.config.tls {
				m.that(e.Scheme != nil && strings.EqualFold(string(*e.Scheme), "https"), where, "not over TLS")
				m.that(e.TLSConfig != nil && e.TLSConfig.InsecureSkipVerify == nil && e.TLSConfig.CA.Secret != nil, where, "the token is shown to whoever answers")
			}
		}
	}
}
