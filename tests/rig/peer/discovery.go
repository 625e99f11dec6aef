package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// keyOf derives a node's key from its name: dialling needs the key of a peer, and DNS provides only the name.
func keyOf(name string) (crypto.PrivKey, error) {
	seed := sha256.Sum256([]byte("nimlab.dev/rig/peer " + name))
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	return key, err
}

// dial keeps the requested number of connections open, to random peers of the headless Service.
func dial(ctx context.Context, self host.Host, asked settings) {
	for ctx.Err() == nil {
		if wanted := asked.connectTo - len(self.Network().Peers()); wanted > 0 {
			connect(ctx, self, asked.name, wanted)
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialEvery):
		}
	}
}

func connect(ctx context.Context, self host.Host, name string, wanted int) {
	service, err := serviceOf(ctx, name)
	if err != nil {
		fmt.Println("Failed to resolve: ", err)
		return
	}
	fmt.Println("Trying to resolve ", service)
	addresses, err := net.DefaultResolver.LookupIP(ctx, "ip4", service)
	if err != nil {
		fmt.Println("Failed to resolve: ", err)
		return
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	for _, address := range addresses {
		other, err := whoIs(ctx, address.String())
		if err != nil || other.ID == self.ID() || len(self.Network().ConnsToPeer(other.ID)) > 0 {
			continue
		}
		fmt.Println("Trying to connect to ", address)
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = self.Connect(within, other)
		cancel()
		if err != nil {
			fmt.Println("Failed to dial ", err)
			continue
		}
		fmt.Println("Connected!")
		if wanted--; wanted == 0 {
			return
		}
	}
}

// serviceOf returns the Service of this pod: the part of its full name after its own name.
func serviceOf(ctx context.Context, name string) (string, error) {
	own, err := net.DefaultResolver.LookupIP(ctx, "ip4", name)
	if err != nil || len(own) == 0 {
		return "", fmt.Errorf("%s has no address: %w", name, err)
	}
	full, err := fullName(ctx, own[0].String())
	if err != nil {
		return "", err
	}
	_, service, _ := strings.Cut(full, ".")
	return service, nil
}

func whoIs(ctx context.Context, address string) (peer.AddrInfo, error) {
	full, err := fullName(ctx, address)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	name, _, _ := strings.Cut(full, ".")
	key, err := keyOf(name)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	at, err := multiaddr.NewMultiaddr("/ip4/" + address + "/tcp/5000")
	return peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{at}}, err
}

// fullName returns the longest name that an address resolves back to, because /etc/hosts also has short names.
func fullName(ctx context.Context, address string) (string, error) {
	names, err := net.DefaultResolver.LookupAddr(ctx, address)
	if err != nil {
		return "", err
	}
	longest := ""
	for _, name := range names {
		if strings.Count(name, ".") > strings.Count(longest, ".") {
			longest = name
		}
	}
	if longest == "" {
		return "", fmt.Errorf("%s has no full name", address)
	}
	return longest, nil
}
