// One binary that is etcd, kube-apiserver or kube-controller-manager,
// depending on the name by which it is called.
//
// The three share most of their code, so one link step and one file cost a
// third of what three binaries would. The name is either that of the symlink
// through which the binary was started, or its first argument:
//
//	kube-apiserver --version
//	kube-parts kube-apiserver --version
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "time/tzdata" // time zones do not depend on the machine

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// run starts the named part; it answers false when there is none of that name.
func run(name string) bool {
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	default:
		return false
	}
	return true
}

func main() {
	if run(filepath.Base(os.Args[0])) {
		return
	}
	// Not called through a symlink: the first argument names the part and is
	// taken away, because each part reads os.Args itself.
	if len(os.Args) > 1 {
		os.Args = os.Args[1:]
		if run(filepath.Base(os.Args[0])) {
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: kube-parts {etcd|kube-apiserver|kube-controller-manager} [FLAG]...")
	os.Exit(2)
}
