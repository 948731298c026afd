package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

// ttl is CoreDNS's default, in seconds: short, so that tests see changes.
const ttl = 5

// zone is one immutable picture of the cluster. A name that is a key exists,
// even without records (NODATA); any other name does not (NXDOMAIN).
type zone struct {
	domain     string // "cluster.local."
	records    map[string][]dns.RR
	namespaces map[string]bool
	reverse    map[string]string // reverse name -> name
}

func (z *zone) exists(name string) bool { _, ok := z.records[name]; return ok }

// touch makes a name exist together with all names between it and the apex.
func (z *zone) touch(name string) {
	for name != z.domain {
		if z.exists(name) {
			return
		}
		z.records[name] = nil
		next, end := dns.NextLabel(name, 0)
		if end {
			return
		}
		name = name[next:]
	}
}

func (z *zone) add(name string, rr dns.RR) {
	z.touch(name)
	for _, have := range z.records[name] {
		if dns.IsDuplicate(have, rr) {
			return
		}
	}
	z.records[name] = append(z.records[name], rr)
}

func (z *zone) addAddress(name, address string) {
	if rr := addressRecord(name, address); rr != nil {
		z.add(name, rr)
	}
}

func (z *zone) addReverse(address, name string) {
	if reverse, err := dns.ReverseAddr(address); err == nil {
		if _, taken := z.reverse[reverse]; !taken {
			z.reverse[reverse] = name
		}
	}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// addressRecord is an A or AAAA record, or nil if address is not an IP.
func addressRecord(name, address string) dns.RR {
	ip := net.ParseIP(address)
	if ip == nil {
		return nil
	}
	if v4 := ip.To4(); v4 != nil {
		return &dns.A{Hdr: header(name, dns.TypeA), A: v4}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: ip}
}

func (z *zone) soa() dns.RR {
	return &dns.SOA{
		Hdr: header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

func buildZone(domain string, services []*corev1.Service, endpoints []*corev1.Endpoints,
	namespaces []*corev1.Namespace, podAddresses func(namespace, name string) []corev1.PodIP) *zone {
	z := &zone{
		domain:     domain,
		records:    map[string][]dns.RR{},
		namespaces: map[string]bool{},
		reverse:    map[string]string{},
	}
	z.records[domain] = []dns.RR{
		z.soa(),
		&dns.NS{Hdr: header(domain, dns.TypeNS), Ns: "ns.dns." + domain},
	}
	z.add("dns-version."+domain, &dns.TXT{Hdr: header("dns-version."+domain, dns.TypeTXT), Txt: []string{"1.1.0"}})
	z.touch("pod." + domain)
	for _, namespace := range namespaces {
		z.namespaces[namespace.Name] = true
		z.touch(namespace.Name + ".svc." + domain)
	}
	byName := map[string]*corev1.Endpoints{}
	for _, e := range endpoints {
		byName[e.Namespace+"/"+e.Name] = e
	}
	for _, service := range services {
		name := fmt.Sprintf("%s.%s.svc.%s", service.Name, service.Namespace, domain)
		switch {
		case service.Spec.Type == corev1.ServiceTypeExternalName:
			z.add(name, &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: dns.Fqdn(service.Spec.ExternalName)})
		case service.Spec.ClusterIP == corev1.ClusterIPNone:
			z.touch(name)
			if e := byName[service.Namespace+"/"+service.Name]; e != nil {
				z.addHeadless(name, service, e, podAddresses)
			}
		default:
			z.addClusterIPs(name, service)
		}
	}
	return z
}

func (z *zone) addClusterIPs(name string, service *corev1.Service) {
	addresses := service.Spec.ClusterIPs
	if len(addresses) == 0 && service.Spec.ClusterIP != "" {
		addresses = []string{service.Spec.ClusterIP}
	}
	z.touch(name)
	for _, address := range addresses {
		z.addAddress(name, address)
		z.addReverse(address, name)
	}
	for _, port := range service.Spec.Ports {
		z.addService(name, port.Name, port.Protocol, port.Port, name)
	}
}

// addHeadless gives the pods' own addresses. Endpoints of this Kubernetes
// version carry one family only; the other one comes from the pod's status.
func (z *zone) addHeadless(name string, service *corev1.Service, endpoints *corev1.Endpoints,
	podAddresses func(namespace, name string) []corev1.PodIP) {
	for _, subset := range endpoints.Subsets {
		ready := subset.Addresses
		if service.Spec.PublishNotReadyAddresses {
			ready = append(append([]corev1.EndpointAddress{}, ready...), subset.NotReadyAddresses...)
		}
		for _, endpoint := range ready {
			addresses := []string{endpoint.IP}
			if ref := endpoint.TargetRef; ref != nil && ref.Kind == "Pod" && len(service.Spec.IPFamilies) > 1 {
				for _, ip := range podAddresses(service.Namespace, ref.Name) {
					if ip.IP != endpoint.IP {
						addresses = append(addresses, ip.IP)
					}
				}
			}
			for _, address := range addresses {
				host := endpoint.Hostname
				if host == "" {
					host = strings.NewReplacer(".", "-", ":", "-").Replace(address)
				}
				target := host + "." + name
				z.addAddress(name, address)
				z.addAddress(target, address)
				z.addReverse(address, target)
				for _, port := range subset.Ports {
					z.addService(name, port.Name, port.Protocol, port.Port, target)
				}
			}
		}
	}
}

func (z *zone) addService(name, port string, protocol corev1.Protocol, number int32, target string) {
	if port == "" {
		return
	}
	owner := fmt.Sprintf("_%s._%s.%s", port, strings.ToLower(string(protocol)), name)
	z.add(owner, &dns.SRV{Hdr: header(owner, dns.TypeSRV), Weight: 100, Port: uint16(number), Target: target})
}

// podRecord answers DASHED-ADDRESS.NAMESPACE.pod.DOMAIN without asking whether
// such a pod runs (`pods insecure`). The second value: does the name exist?
func (z *zone) podRecord(name string) (dns.RR, bool) {
	labels := dns.SplitDomainName(strings.TrimSuffix(name, "pod."+z.domain))
	if len(labels) == 0 || !z.namespaces[labels[len(labels)-1]] {
		return nil, false
	}
	switch len(labels) {
	case 1:
		return nil, true
	case 2:
		if rr := addressRecord(name, strings.ReplaceAll(labels[0], "-", ".")); rr != nil {
			return rr, true
		}
		if rr := addressRecord(name, strings.ReplaceAll(labels[0], "-", ":")); rr != nil {
			return rr, true
		}
	}
	return nil, false
}
