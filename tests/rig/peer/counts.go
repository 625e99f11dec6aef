package main

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const lowDegree = 4

// counts holds the metrics of the node, named as in nim-libp2p; GossipSub calls it for every event.
type counts struct {
	host  host.Host
	bytes *metrics.BandwidthCounter

	mutex                            sync.Mutex
	mesh, known                      map[peer.ID]bool
	published, delivered, duplicates int
	in, out                          controls
}

// controls counts GossipSub's control messages in one direction.
type controls struct{ ihave, iwant, graft, prune int }

func newCounts(self host.Host, bytes *metrics.BandwidthCounter) *counts {
	return &counts{host: self, bytes: bytes, mesh: map[peer.ID]bool{}, known: map[peer.ID]bool{}}
}

func (c *counts) write(w io.Writer) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	gauge := func(name string, value int) { fmt.Fprintf(w, "# TYPE %[1]s gauge\n%[1]s %[2]d\n", name, value) }
	counter := func(name, labels string, value int64) {
		fmt.Fprintf(w, "# TYPE %[1]s counter\n%[1]s%[2]s %[3]d\n", name, labels, value)
	}
	topic := fmt.Sprintf("{topic=%q}", topicName)
	gauge("libp2p_peers", len(c.host.Network().Peers()))
	c.writeStreams(w)
	totals := c.bytes.GetBandwidthTotals()
	fmt.Fprintf(w, "# TYPE libp2p_network_bytes_total counter\n")
	fmt.Fprintf(w, "libp2p_network_bytes_total{direction=\"in\"} %d\n", totals.TotalIn)
	fmt.Fprintf(w, "libp2p_network_bytes_total{direction=\"out\"} %d\n", totals.TotalOut)
	gauge("libp2p_pubsub_peers", len(c.known))
	gauge("libp2p_pubsub_topics", 1)
	counter("libp2p_pubsub_messages_published_total", topic, int64(c.published))
	counter("libp2p_pubsub_received_messages_total", topic, int64(c.delivered+c.duplicates))
	for _, way := range []struct {
		name string
		controls
	}{{"broadcast", c.out}, {"received", c.in}} {
		counter("libp2p_pubsub_"+way.name+"_ihave_total", topic, int64(way.ihave))
		counter("libp2p_pubsub_"+way.name+"_iwant_total", "", int64(way.iwant))
		counter("libp2p_pubsub_"+way.name+"_graft_total", topic, int64(way.graft))
		counter("libp2p_pubsub_"+way.name+"_prune_total", topic, int64(way.prune))
	}
	fmt.Fprintf(w, "# TYPE libp2p_gossipsub_peers_per_topic_mesh gauge\n")
	fmt.Fprintf(w, "libp2p_gossipsub_peers_per_topic_mesh%s %d\n", topic, len(c.mesh))
	degree := len(c.mesh)
	gauge("libp2p_gossipsub_no_peers_topics", one(degree == 0))
	gauge("libp2p_gossipsub_low_peers_topics", one(degree > 0 && degree < lowDegree))
	gauge("libp2p_gossipsub_healthy_peers_topics", one(degree >= lowDegree))
	counter("libp2p_gossipsub_duplicate_total", "", int64(c.duplicates))
	counter("libp2p_gossipsub_received_total", "", int64(c.delivered))
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	gauge("nim_gc_mem_bytes", int(memory.HeapSys))
}

func (c *counts) writeStreams(w io.Writer) {
	var in, out int
	for _, connection := range c.host.Network().Conns() {
		for _, stream := range connection.GetStreams() {
			if stream.Stat().Direction == network.DirInbound {
				in++
			} else {
				out++
			}
		}
	}
	fmt.Fprintf(w, "# TYPE libp2p_open_streams gauge\n")
	fmt.Fprintf(w, "libp2p_open_streams{type=\"YamuxStream\",dir=\"in\"} %d\n", in)
	fmt.Fprintf(w, "libp2p_open_streams{type=\"YamuxStream\",dir=\"out\"} %d\n", out)
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func (c *counts) note(change func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	change()
}

// The methods below implement pubsub.RawTracer. A peer is known while a stream to it is open.

func (c *counts) OnNewOutboundStream(id peer.ID, _ protocol.ID) {
	c.note(func() { c.known[id] = true })
}

func (c *counts) OnClosedOutboundStream(id peer.ID) {
	c.note(func() { delete(c.known, id); delete(c.mesh, id) })
}

func (c *counts) Graft(id peer.ID, _ string) { c.note(func() { c.mesh[id] = true }) }
func (c *counts) Prune(id peer.ID, _ string) { c.note(func() { delete(c.mesh, id) }) }

func (c *counts) DeliverMessage(m *pubsub.Message) {
	if m.ReceivedFrom != c.host.ID() {
		c.note(func() { c.delivered++ })
	}
}

func (c *counts) DuplicateMessage(*pubsub.Message)   { c.note(func() { c.duplicates++ }) }
func (c *counts) RecvRPC(rpc *pubsub.RPC)            { c.note(func() { c.in.add(rpc) }) }
func (c *counts) SendRPC(rpc *pubsub.RPC, _ peer.ID) { c.note(func() { c.out.add(rpc) }) }

func (c *counts) Join(string)                                          {}
func (c *counts) Leave(string)                                         {}
func (c *counts) ValidateMessage(*pubsub.Message)                      {}
func (c *counts) RejectMessage(*pubsub.Message, string)                {}
func (c *counts) UndeliverableMessage(*pubsub.Message)                 {}
func (c *counts) ThrottlePeer(peer.ID)                                 {}
func (c *counts) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (c *counts) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}

func (c *controls) add(rpc *pubsub.RPC) {
	control := rpc.GetControl()
	c.ihave += len(control.GetIhave())
	c.iwant += len(control.GetIwant())
	c.graft += len(control.GetGraft())
	c.prune += len(control.GetPrune())
}
