// Command peer is a GossipSub node for tests with real pods; it implements the contract `nimp2p` (contracts/nimp2p.yaml).
//
// It reads PEERS, CONNECTTO, MSGRATE (ms) and MSGSIZE (bytes) and dials peers that it finds through its headless
// Service. It listens on port 5000, exposes metrics on port 8008, and logs one line for each message sent and received.
// Unlike the original, it dials without waiting for a minute, and dials again while it has too few connections.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/metrics"
)

const (
	topicName   = "test"
	stampBytes  = 8 // nanoseconds since 1970, little endian, followed by MSGSIZE zero bytes
	listenOn    = "/ip4/0.0.0.0/tcp/5000"
	metricsOn   = ":8008"
	redialEvery = time.Second
)

type settings struct {
	peers, connectTo, size int
	rate                   time.Duration
	ordinal                int
	name                   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.SetFlags(0)
	if err := run(ctx, read()); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, asked settings) error {
	key, err := keyOf(asked.name)
	if err != nil {
		return err
	}
	bytes := metrics.NewBandwidthCounter()
	host, err := libp2p.New(
		libp2p.Identity(key), libp2p.ListenAddrStrings(listenOn), libp2p.BandwidthReporter(bytes),
		libp2p.DisableRelay(), libp2p.Ping(false),
	)
	if err != nil {
		return err
	}
	defer host.Close()
	counts := newCounts(host, bytes)
	gossip, err := pubsub.NewGossipSub(
		ctx, host, pubsub.WithGossipSubParams(parameters()), pubsub.WithFloodPublish(true),
		pubsub.WithRawTracer(counts), pubsub.WithMaxMessageSize(16<<20),
	)
	if err != nil {
		return err
	}
	topic, err := gossip.Join(topicName)
	if err != nil {
		return err
	}
	messages, err := topic.Subscribe(pubsub.WithBufferSize(1024))
	if err != nil {
		return err
	}
	fmt.Println("Hostname: ", asked.name)
	go serve(counts)
	go dial(ctx, host, asked)
	go publish(ctx, topic, asked, counts)
	for {
		message, err := messages.Next(ctx)
		if err != nil {
			return err
		}
		if message.ReceivedFrom == host.ID() || len(message.Data) < stampBytes {
			continue
		}
		sent := int64(binary.LittleEndian.Uint64(message.Data))
		fmt.Printf("%d milliseconds: %d\n", sent, (time.Now().UnixNano()-sent)/int64(time.Millisecond))
	}
}

// publish sends a message when it is this peer's turn: one message per interval in the whole network if all start at once.
func publish(ctx context.Context, topic *pubsub.Topic, asked settings, counts *counts) {
	fmt.Println("Publishing turn is: ", asked.ordinal)
	clock := time.NewTicker(asked.rate)
	defer clock.Stop()
	for number := 0; ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		if number%asked.peers != asked.ordinal%asked.peers {
			continue
		}
		data := make([]byte, stampBytes+asked.size)
		now := time.Now().UnixNano()
		binary.LittleEndian.PutUint64(data, uint64(now))
		fmt.Println("Sending message at: ", now)
		if err := topic.Publish(ctx, data); err != nil {
			log.Println("Failed to publish: ", err)
			continue
		}
		counts.note(func() { counts.published++ })
	}
}

func serve(counts *counts) {
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		counts.write(w)
	})
	log.Fatal(http.ListenAndServe(metricsOn, nil))
}

func parameters() pubsub.GossipSubParams {
	given := pubsub.DefaultGossipSubParams()
	given.D, given.Dlo, given.Dhi, given.Dlazy = 6, lowDegree, 8, 6
	given.HeartbeatInterval = time.Second
	return given
}

func read() settings {
	name, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	ordinal, _ := strconv.Atoi(name[strings.LastIndex(name, "-")+1:])
	return settings{
		peers: number("PEERS"), connectTo: number("CONNECTTO"), size: number("MSGSIZE"),
		rate: time.Duration(number("MSGRATE")) * time.Millisecond, ordinal: ordinal, name: name,
	}
}

// number exits the process if a variable is missing, as the original does.
func number(variable string) int {
	value, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		log.Fatalf("%s: %v", variable, err)
	}
	return value
}
