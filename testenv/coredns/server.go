package main

import (
	"bytes"
	"errors"
	"io/ioutil"
	"log"
	"math/rand"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// settings is what the stand-in understands of a Corefile.
type settings struct {
	domain    string
	upstreams []string   // "address:port"
	dns64     *net.IPNet // prefix for synthesised AAAA records, or nil
}

type server struct {
	corefile, resolv string
	requests         uint64
	config           atomic.Value // *settings
	zone             atomic.Value // *zone
}

func (s *server) settings() *settings { return s.config.Load().(*settings) }

func (s *server) reload() error {
	text, err := ioutil.ReadFile(s.corefile)
	if err != nil {
		return err
	}
	config, err := parseCorefile(string(text), s.resolv)
	if err != nil {
		return err
	}
	s.config.Store(config)
	return nil
}

// watchCorefile stands in for the `reload` plugin.
func (s *server) watchCorefile(every time.Duration) {
	last, _ := ioutil.ReadFile(s.corefile)
	for range time.Tick(every) {
		text, err := ioutil.ReadFile(s.corefile)
		if err != nil || bytes.Equal(text, last) {
			continue
		}
		last = text
		if err := s.reload(); err != nil {
			log.Printf("keeping the old configuration: %v", err)
			continue
		}
		log.Print("read the Corefile again")
	}
}

// parseCorefile reads the `kubernetes`, `forward` and `dns64` lines of the
// server block for "."; everything else has a fixed meaning here.
func parseCorefile(text, resolv string) (*settings, error) {
	config := &settings{domain: "cluster.local."}
	plugin := ""
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(strings.SplitN(line, "#", 2)[0])
		if len(words) == 0 {
			continue
		}
		block := words[len(words)-1] == "{"
		if block {
			words = words[:len(words)-1]
		}
		switch {
		case len(words) > 1 && words[0] == "kubernetes":
			config.domain = strings.ToLower(dns.Fqdn(words[1]))
		case len(words) > 2 && words[0] == "forward" && words[1] == ".":
			upstreams, err := parseUpstreams(words[2:], resolv)
			if err != nil {
				return nil, err
			}
			config.upstreams = upstreams
		case len(words) > 0 && words[0] == "dns64",
			len(words) > 1 && words[0] == "prefix" && plugin == "dns64":
			prefix := "64:ff9b::/96"
			if len(words) > 1 {
				prefix = words[1]
			}
			_, network, err := net.ParseCIDR(prefix)
			if err != nil {
				return nil, err
			}
			if ones, bits := network.Mask.Size(); ones != 96 || bits != 128 {
				return nil, errors.New("dns64: only /96 prefixes are supported")
			}
			config.dns64 = network
		}
		if block && len(words) > 0 {
			plugin = words[0]
		}
	}
	return config, nil
}

func parseUpstreams(words []string, resolv string) ([]string, error) {
	var upstreams []string
	for _, word := range words {
		if strings.HasPrefix(word, "/") {
			config, err := dns.ClientConfigFromFile(resolv)
			if err != nil {
				return nil, err
			}
			for _, address := range config.Servers {
				upstreams = append(upstreams, net.JoinHostPort(address, config.Port))
			}
			continue
		}
		if net.ParseIP(word) != nil {
			word = net.JoinHostPort(word, "53")
		}
		upstreams = append(upstreams, word)
	}
	return upstreams, nil
}

func (s *server) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	atomic.AddUint64(&s.requests, 1)
	reply := s.answer(w, request)
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if opt := request.IsEdns0(); opt != nil && int(opt.UDPSize()) > size {
			size = int(opt.UDPSize())
		}
		reply.Compress = true
		if reply.Len() > size {
			reply.Truncated = true
			for reply.Len() > size && len(reply.Answer) > 0 {
				reply.Answer = reply.Answer[:len(reply.Answer)-1]
			}
		}
	}
	if err := w.WriteMsg(reply); err != nil {
		log.Printf("reply to %s: %v", w.RemoteAddr(), err)
	}
}

func (s *server) answer(w dns.ResponseWriter, request *dns.Msg) *dns.Msg {
	config := s.settings()
	reply := new(dns.Msg)
	reply.SetReply(request)
	reply.RecursionAvailable = true
	if len(request.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
		return reply
	}
	question := request.Question[0]
	name := strings.ToLower(question.Name)
	z, ready := s.zone.Load().(*zone)
	if !ready {
		reply.Rcode = dns.RcodeServerFailure
		return reply
	}
	if target, known := z.reverse[name]; known && question.Qtype == dns.TypePTR {
		reply.Authoritative = true
		reply.Answer = []dns.RR{&dns.PTR{Hdr: header(question.Name, dns.TypePTR), Ptr: target}}
		return reply
	}
	if dns.IsSubDomain(z.domain, name) {
		s.local(z, name, question, reply)
		return reply
	}
	network := w.RemoteAddr().Network()
	forwarded := forward(config.upstreams, network, request)
	if config.dns64 != nil && question.Qtype == dns.TypeAAAA && forwarded.Rcode == dns.RcodeSuccess && !has(forwarded, dns.TypeAAAA) {
		synthesise(config, network, request, forwarded)
	}
	return forwarded
}

// local fills in the answer for a name of the cluster's domain.
func (s *server) local(z *zone, name string, question dns.Question, reply *dns.Msg) {
	reply.Authoritative = true
	records, exists := z.records[name]
	if !exists && dns.IsSubDomain("pod."+z.domain, name) {
		var rr dns.RR
		if rr, exists = z.podRecord(name); rr != nil {
			records = []dns.RR{rr}
		}
	}
	for _, rr := range records {
		kind := rr.Header().Rrtype
		if kind != question.Qtype && question.Qtype != dns.TypeANY && kind != dns.TypeCNAME {
			continue
		}
		reply.Answer = append(reply.Answer, rr)
		if srv, ok := rr.(*dns.SRV); ok {
			for _, extra := range z.records[srv.Target] {
				if t := extra.Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
					reply.Extra = append(reply.Extra, extra)
				}
			}
		}
		// An external name is resolved for the client, as stub resolvers expect.
		if cname, ok := rr.(*dns.CNAME); ok && question.Qtype != dns.TypeCNAME {
			if dns.IsSubDomain(z.domain, strings.ToLower(cname.Target)) {
				for _, next := range z.records[strings.ToLower(cname.Target)] {
					if next.Header().Rrtype == question.Qtype {
						reply.Answer = append(reply.Answer, next)
					}
				}
			} else {
				further := new(dns.Msg)
				further.SetQuestion(cname.Target, question.Qtype)
				reply.Answer = append(reply.Answer, forward(s.settings().upstreams, "udp", further).Answer...)
			}
		}
	}
	// Spread the load over a headless service's pods.
	rand.Shuffle(len(reply.Answer), func(i, j int) {
		a := reply.Answer
		if a[i].Header().Rrtype == a[j].Header().Rrtype && a[i].Header().Rrtype != dns.TypeCNAME {
			a[i], a[j] = a[j], a[i]
		}
	})
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{z.soa()}
	}
}

// forward asks the upstreams in turn; SERVFAIL when none answers.
func forward(upstreams []string, network string, request *dns.Msg) *dns.Msg {
	client := &dns.Client{Net: network, Timeout: 2 * time.Second, UDPSize: dns.DefaultMsgSize}
	for _, upstream := range upstreams {
		reply, _, err := client.Exchange(request.Copy(), upstream)
		if err == nil {
			reply.Id = request.Id
			return reply
		}
		log.Printf("upstream %s: %v", upstream, err)
	}
	reply := new(dns.Msg)
	reply.SetRcode(request, dns.RcodeServerFailure)
	return reply
}

func has(msg *dns.Msg, kind uint16) bool {
	for _, rr := range msg.Answer {
		if rr.Header().Rrtype == kind {
			return true
		}
	}
	return false
}

// synthesise adds the AAAA records of RFC 6147 to an empty answer.
func synthesise(config *settings, network string, request, reply *dns.Msg) {
	query := request.Copy()
	query.Question[0].Qtype = dns.TypeA
	for _, rr := range forward(config.upstreams, network, query).Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			reply.Answer = append(reply.Answer, rr)
			continue
		}
		address := append(append(net.IP{}, config.dns64.IP[:12]...), a.A.To4()...)
		reply.Answer = append(reply.Answer, &dns.AAAA{
			Hdr:  dns.RR_Header{Name: a.Hdr.Name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: a.Hdr.Ttl},
			AAAA: address,
		})
	}
}
