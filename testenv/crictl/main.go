// crictl, the part of it that tools around node images call: `kind load` reads
// `crictl inspecti`, `kind export logs` calls `crictl images`, people look at
// pods and containers. No Debian package carries the upstream tool; this one is
// built in the Kubernetes source tree with the CRI client vendored there.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/ioutil"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
	"k8s.io/kubernetes/pkg/kubelet/util"
	"sigs.k8s.io/yaml"
)

const usage = `usage: crictl [-r ENDPOINT] COMMAND
  images [-q] [-o json|table]     inspecti [-q] IMAGE...    pull IMAGE    rmi IMAGE...
  pods [-q] [-o json|table]       ps [-a] [-q] [-o json|table]
  stopp POD...   rmp POD...       stop CONTAINER...         rm CONTAINER...
  info           version
`

type client struct {
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	ctx     context.Context
}

func main() {
	endpoint, timeout := defaults()
	flag.StringVar(&endpoint, "r", endpoint, "endpoint")
	flag.StringVar(&endpoint, "runtime-endpoint", endpoint, "endpoint")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(1)
	}
	if err := run(endpoint, timeout, flag.Arg(0), flag.Args()[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "crictl: %v\n", err)
		os.Exit(1)
	}
}

// defaults come from /etc/crictl.yaml.
func defaults() (string, time.Duration) {
	var file struct {
		Endpoint string `json:"runtime-endpoint"`
		Timeout  int    `json:"timeout"`
	}
	if text, err := ioutil.ReadFile("/etc/crictl.yaml"); err == nil {
		_ = yaml.Unmarshal(text, &file)
	}
	if file.Endpoint == "" {
		file.Endpoint = "unix:///run/containerd/containerd.sock"
	}
	if file.Timeout == 0 {
		file.Timeout = 60
	}
	return file.Endpoint, time.Duration(file.Timeout) * time.Second
}

func run(endpoint string, timeout time.Duration, command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	quiet := flags.Bool("q", false, "only ids")
	all := flags.Bool("a", false, "also containers that ended")
	output := flags.String("o", "table", "json or table")
	_ = flags.Parse(args)

	address, dialer, err := util.GetAddressAndDialer(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	connection, err := grpc.DialContext(ctx, address, grpc.WithInsecure(), grpc.WithBlock(),
		grpc.WithContextDialer(dialer), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return fmt.Errorf("connect to %s: %v", endpoint, err)
	}
	c := &client{cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection), ctx}
	asJSON := *output == "json"
	switch command {
	case "images", "image", "img":
		return c.listImages(*quiet, asJSON)
	case "inspecti":
		return each(flags.Args(), func(name string) error { return c.inspectImage(name, *quiet) })
	case "pull":
		return each(flags.Args(), func(name string) error {
			_, err := c.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: name}})
			return err
		})
	case "rmi":
		return each(flags.Args(), func(name string) error {
			_, err := c.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: name}})
			return err
		})
	case "pods":
		return c.listPods(*quiet, asJSON)
	case "ps":
		return c.listContainers(*all, *quiet, asJSON)
	case "stopp":
		return each(flags.Args(), func(id string) error {
			_, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
			return err
		})
	case "rmp":
		return each(flags.Args(), func(id string) error {
			_, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
			return err
		})
	case "stop":
		return each(flags.Args(), func(id string) error {
			_, err := c.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: 10})
			return err
		})
	case "rm":
		return each(flags.Args(), func(id string) error {
			_, err := c.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
			return err
		})
	case "info":
		reply, err := c.runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		return printJSON(map[string]interface{}{"status": reply.Status, "info": unpack(reply.Info)})
	case "version":
		reply, err := c.runtime.Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		fmt.Printf("RuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
			reply.RuntimeName, reply.RuntimeVersion, reply.RuntimeApiVersion)
		return nil
	}
	return fmt.Errorf("unknown command %q\n%s", command, usage)
}

func each(names []string, do func(string) error) error {
	if len(names) == 0 {
		return fmt.Errorf("a name or id is needed")
	}
	for _, name := range names {
		if err := do(name); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(value interface{}) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		fmt.Println(string(text))
	}
	return err
}

// unpack turns the JSON documents in the verbose answers' values into objects.
func unpack(info map[string]string) map[string]interface{} {
	out := map[string]interface{}{}
	for key, text := range info {
		var value interface{}
		if json.Unmarshal([]byte(text), &value) != nil {
			value = text
		}
		out[key] = value
	}
	return out
}

// image has upstream crictl's JSON field names.
func image(i *cri.Image) map[string]interface{} {
	list := func(in []string) []string { return append([]string{}, in...) }
	return map[string]interface{}{
		"id": i.Id, "repoTags": list(i.RepoTags), "repoDigests": list(i.RepoDigests),
		"size": fmt.Sprint(i.Size_), "username": i.Username,
	}
}

func (c *client) inspectImage(name string, quiet bool) error {
	reply, err := c.images.ImageStatus(c.ctx, &cri.ImageStatusRequest{
		Image: &cri.ImageSpec{Image: name}, Verbose: !quiet})
	if err != nil {
		return err
	}
	if reply.Image == nil {
		return fmt.Errorf("no such image %q present", name)
	}
	return printJSON(map[string]interface{}{"status": image(reply.Image), "info": unpack(reply.Info)})
}

func (c *client) listImages(quiet, asJSON bool) error {
	reply, err := c.images.ListImages(c.ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	if asJSON {
		list := []interface{}{}
		for _, i := range reply.Images {
			list = append(list, image(i))
		}
		return printJSON(map[string]interface{}{"images": list})
	}
	return table(quiet, "IMAGE\tTAG\tIMAGE ID\tSIZE", func(row func(id, line string)) {
		for _, i := range reply.Images {
			names := i.RepoTags
			if len(names) == 0 {
				names = []string{"<none>:<none>"}
			}
			id := strings.TrimPrefix(i.Id, "sha256:")
			for _, name := range names {
				at := strings.LastIndex(name, ":")
				row(i.Id, fmt.Sprintf("%s\t%s\t%.13s\t%.1fMB", name[:at], name[at+1:], id, float64(i.Size_)/1e6))
			}
		}
	})
}

func (c *client) listPods(quiet, asJSON bool) error {
	reply, err := c.runtime.ListPodSandbox(c.ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(map[string]interface{}{"items": reply.Items})
	}
	return table(quiet, "POD ID\tCREATED\tSTATE\tNAME\tNAMESPACE\tATTEMPT", func(row func(id, line string)) {
		for _, p := range reply.Items {
			state := strings.TrimPrefix(p.State.String(), "SANDBOX_")
			row(p.Id, fmt.Sprintf("%.13s\t%s\t%s\t%s\t%s\t%d", p.Id, age(p.CreatedAt), state,
				p.Metadata.Name, p.Metadata.Namespace, p.Metadata.Attempt))
		}
	})
}

func (c *client) listContainers(all, quiet, asJSON bool) error {
	filter := &cri.ContainerFilter{}
	if !all {
		filter.State = &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
	}
	reply, err := c.runtime.ListContainers(c.ctx, &cri.ListContainersRequest{Filter: filter})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(map[string]interface{}{"containers": reply.Containers})
	}
	return table(quiet, "CONTAINER\tCREATED\tSTATE\tNAME\tATTEMPT\tPOD ID\tPOD", func(row func(id, line string)) {
		for _, k := range reply.Containers {
			state := strings.TrimPrefix(k.State.String(), "CONTAINER_")
			row(k.Id, fmt.Sprintf("%.13s\t%s\t%s\t%s\t%d\t%.13s\t%s", k.Id, age(k.CreatedAt), state,
				k.Metadata.Name, k.Metadata.Attempt, k.PodSandboxId, k.Labels["io.kubernetes.pod.name"]))
		}
	})
}

func age(created int64) string {
	return time.Since(time.Unix(0, created)).Round(time.Second).String() + " ago"
}

func table(quiet bool, heading string, fill func(row func(id, line string))) error {
	if quiet {
		fill(func(id, _ string) { fmt.Println(id) })
		return nil
	}
	out := tabwriter.NewWriter(os.Stdout, 4, 0, 3, ' ', 0)
	fmt.Fprintln(out, heading)
	fill(func(_, line string) { fmt.Fprintln(out, line) })
	return out.Flush()
}
