package main

import (
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func service(name string, families int, addresses ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = addresses[0], addresses
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}[:families]
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}
	return s
}

func testZone() *zone {
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "headless"},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{
				IP: "10.244.1.5", Hostname: "web-0",
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-0"},
			}},
			NotReadyAddresses: []corev1.EndpointAddress{{IP: "10.244.1.6"}},
			Ports:             []corev1.EndpointPort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 8080}},
		}},
	}
	pods := func(_, name string) []corev1.PodIP {
		return []corev1.PodIP{{IP: "10.244.1.5"}, {IP: "fd00:10:244:1::5"}}
	}
	return buildZone("cluster.local.", []*corev1.Service{
		service("four", 1, "10.96.0.4"),
		service("dual", 2, "10.96.0.5", "fd00:10:96::5"),
		service("headless", 2, corev1.ClusterIPNone),
	}, []*corev1.Endpoints{endpoints}, []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}, pods)
}

func ask(z *zone, name string, kind uint16) *dns.Msg {
	reply := new(dns.Msg)
	(&server{}).local(z, name, dns.Question{Name: name, Qtype: kind, Qclass: dns.ClassINET}, reply)
	return reply
}

func TestAnswers(t *testing.T) {
	z := testZone()
	for _, c := range []struct {
		name    string
		kind    uint16
		rcode   int
		answers int
	}{
		{"four.default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"four.default.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"dual.default.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 1},
		{"none.default.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
		{"default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 0},
		{"headless.default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"headless.default.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 1},
		{"web-0.headless.default.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"_http._tcp.headless.default.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, 1},
		{"_http._tcp.four.default.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, 1},
		{"10-1-2-3.default.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"fd00--1.default.pod.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 1},
		{"10-1-2-3.absent.pod.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
		{"cluster.local.", dns.TypeSOA, dns.RcodeSuccess, 1},
	} {
		reply := ask(z, c.name, c.kind)
		if reply.Rcode != c.rcode || len(reply.Answer) != c.answers {
			t.Errorf("%s %s: %s with %d answers, want %s with %d", c.name, dns.TypeToString[c.kind],
				dns.RcodeToString[reply.Rcode], len(reply.Answer), dns.RcodeToString[c.rcode], c.answers)
		}
	}
	if z.reverse["5.0.96.10.in-addr.arpa."] != "dual.default.svc.cluster.local." {
		t.Errorf("reverse names: %v", z.reverse)
	}
}

func TestCorefile(t *testing.T) {
	config, err := parseCorefile(`.:53 {
    kubernetes example.test in-addr.arpa ip6.arpa {
       pods insecure
    }
    forward . 192.0.2.1 2001:db8::1 192.0.2.2:5353 {
       max_concurrent 1000
    }
    dns64 {
       prefix 64:ff9b:1::/96
    }
}`, "/nonexistent")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:5353"}
	if config.domain != "example.test." || len(config.upstreams) != 3 || config.dns64.String() != "64:ff9b:1::/96" {
		t.Fatalf("%+v", config)
	}
	for i := range want {
		if config.upstreams[i] != want[i] {
			t.Errorf("upstream %d is %s, want %s", i, config.upstreams[i], want[i])
		}
	}
}
