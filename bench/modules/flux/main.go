// Command flux is Flux's engine (github.com/fluxcd/pkg/ssa) used as kustomize-controller uses it.
//
// In: a file of rendered objects, the inventory of the last run, and a kubeconfig. It applies objects that have drifted
// (ApplyAllStaged), deletes objects that are in the inventory but not in the file (DeleteAll), and writes the new
// inventory. Unlike the controller, it builds, fetches and decrypts nothing, writes no status and does not wait for
// health.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The group of kustomize-controller's labels and the name of its field manager.
const (
	group   = "kustomize.toolkit.fluxcd.io"
	manager = "kustomize-controller"
)

// entry is one object that an earlier run has applied.
type entry struct {
	Group, Version, Kind, Namespace, Name string
}

func main() {
	objects := flag.String("objects", "", "file of rendered objects")
	inventory := flag.String("inventory", "", "file with the inventory of applied objects")
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig")
	namespace := flag.String("namespace", "", "namespace of the owner")
	// kustomize-controller's own default of --concurrent-ssa
	concurrency := flag.Int("concurrency", 4, "number of concurrent dry runs")
	flag.Parse()
	counts, err := run(context.Background(), *objects, *inventory, *kubeconfig, *namespace, *concurrency)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flux:", err)
		os.Exit(1)
	}
	fmt.Println(counts)
}

// run applies, prunes and writes the inventory; it returns the number of objects per action.
func run(
	ctx context.Context, objectsPath, inventoryPath, kubeconfig, namespace string, concurrency int,
) (map[string]int, error) {
	desired, err := readObjects(objectsPath)
	if err != nil {
		return nil, err
	}
	old, err := readInventory(inventoryPath)
	if err != nil {
		return nil, err
	}
	engine, err := connect(kubeconfig, concurrency)
	if err != nil {
		return nil, err
	}
	// Computed first, because the engine sorts and labels the objects in place.
	fresh := inventoryOf(desired)
	engine.SetOwnerLabels(desired, "bench", namespace)
	applied, err := engine.ApplyAllStaged(ctx, desired, ssa.DefaultApplyOptions())
	if err != nil {
		return nil, err
	}
	deleted, err := engine.DeleteAll(ctx, removed(old, fresh), ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Inclusions:        engine.GetOwnerLabels("bench", namespace),
		Exclusions:        map[string]string{group + "/prune": "disabled"},
	})
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, one := range append(applied.Entries, deleted.Entries...) {
		counts[one.Action.String()]++
	}
	return counts, writeInventory(inventoryPath, fresh)
}

// connect returns the engine with a client like the controller's: it does not cache reads of unstructured objects and
// does not limit its requests, because the server has API Priority and Fairness.
func connect(kubeconfig string, concurrency int) (*ssa.ResourceManager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.Burst = -1
	kube, err := client.New(config, client.Options{})
	if err != nil {
		return nil, err
	}
	// No poller: it would wait for CRDs and namespaces, and none are applied here.
	engine := ssa.NewResourceManager(kube, nil, ssa.Owner{Field: manager, Group: group})
	engine.SetConcurrency(concurrency)
	return engine, nil
}

func readObjects(path string) ([]*unstructured.Unstructured, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	objects, err := utils.ReadObjects(file)
	if err != nil {
		return nil, err
	}
	return objects, normalize.UnstructuredList(objects)
}

func readInventory(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []entry
	return entries, json.Unmarshal(text, &entries)
}

func writeInventory(path string, entries []entry) error {
	text, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func inventoryOf(objects []*unstructured.Unstructured) []entry {
	entries := make([]entry, 0, len(objects))
	for _, object := range objects {
		kind := object.GroupVersionKind()
		entries = append(entries, entry{
			Group: kind.Group, Version: kind.Version, Kind: kind.Kind,
			Namespace: object.GetNamespace(), Name: object.GetName(),
		})
	}
	return entries
}

// removed returns the objects that are in the old inventory but not in the fresh one.
func removed(old, fresh []entry) []*unstructured.Unstructured {
	kept := make(map[entry]bool, len(fresh))
	for _, one := range fresh {
		kept[one] = true
	}
	var objects []*unstructured.Unstructured
	for _, one := range old {
		if kept[one] {
			continue
		}
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(schema.GroupVersionKind{Group: one.Group, Version: one.Version, Kind: one.Kind})
		object.SetNamespace(one.Namespace)
		object.SetName(one.Name)
		objects = append(objects, object)
	}
	return objects
}
