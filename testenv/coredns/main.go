// A stand-in for CoreDNS in clusters whose images are made from Debian packages
// only, where the real one is not to be had. It takes CoreDNS's place behind
// kubeadm's unmodified Deployment: same arguments, same ports, same health
// endpoints, same RBAC, and the Kubernetes DNS-based service discovery
// specification 1.1.0 for the answers, in both address families.
//
// Built in the Kubernetes source tree, with the libraries vendored there.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// settle is how long a change waits for others of the same burst.
const settle = 50 * time.Millisecond

func main() {
	corefile := flag.String("conf", "/etc/coredns/Corefile", "the Corefile")
	resolv := flag.String("resolv", "/etc/resolv.conf", "upstreams for `forward . /etc/resolv.conf`")
	flag.Parse()
	log.SetFlags(log.LstdFlags | log.LUTC)

	server := &server{corefile: *corefile, resolv: *resolv}
	if err := server.reload(); err != nil {
		log.Fatalf("corefile: %v", err)
	}
	go server.watchCorefile(2 * time.Second)

	serveHTTP(":8080", "/health", func() bool { return true })
	serveHTTP(":8181", "/ready", func() bool { return server.zone.Load() != nil })
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE coredns_dns_requests_total counter\ncoredns_dns_requests_total %d\n",
			atomic.LoadUint64(&server.requests))
	})
	serveHTTP(":9153", "", nil)

	for _, network := range []string{"udp", "tcp"} {
		listener := &dns.Server{Addr: ":53", Net: network, Handler: server}
		go func() { log.Fatal(listener.ListenAndServe()) }()
	}

	stop := make(chan struct{})
	if err := follow(server, stop); err != nil {
		log.Fatalf("API server: %v", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	<-signals
	close(stop)
	// Clients learn within a moment that this endpoint is going; answer till then.
	time.Sleep(time.Second)
}

func serveHTTP(address, path string, ok func() bool) {
	var handler http.Handler
	if ok != nil {
		mux := http.NewServeMux()
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if !ok() {
				http.Error(w, "not synchronised with the API server", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, "OK")
		})
		handler = mux
	}
	go func() { log.Fatal(http.ListenAndServe(address, handler)) }()
}

// follow keeps the server's zone equal to what the API server says.
func follow(server *server, stop <-chan struct{}) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	dirty := make(chan struct{}, 1)
	touch := func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{
		core.Services().Informer(), core.Endpoints().Informer(),
		core.Pods().Informer(), core.Namespaces().Informer(),
	} {
		informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(interface{}) { touch() },
			UpdateFunc: func(_, _ interface{}) { touch() },
			DeleteFunc: func(interface{}) { touch() },
		})
		synced = append(synced, informer.HasSynced)
	}
	factory.Start(stop)

	snapshot := func() *zone {
		services, _ := core.Services().Lister().List(labels.Everything())
		endpoints, _ := core.Endpoints().Lister().List(labels.Everything())
		namespaces, _ := core.Namespaces().Lister().List(labels.Everything())
		podAddresses := func(namespace, name string) []corev1.PodIP {
			pod, err := core.Pods().Lister().Pods(namespace).Get(name)
			if err != nil {
				return nil
			}
			return pod.Status.PodIPs
		}
		return buildZone(server.settings().domain, services, endpoints, namespaces, podAddresses)
	}
	go func() {
		if !cache.WaitForCacheSync(stop, synced...) {
			return
		}
		log.Print("synchronised with the API server")
		server.zone.Store(snapshot())
		for {
			select {
			case <-stop:
				return
			case <-dirty:
			}
			time.Sleep(settle)
			server.zone.Store(snapshot())
		}
	}()
	return nil
}
