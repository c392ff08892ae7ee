package natsserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// access is what a client needs to get in, and what the servers' configuration says
// of it. All nodes of a cluster share one.
type access struct {
	caFile, credentialsFile, seedFile string

	config map[string]any
}

// newAccess makes the keys and certificates that o asks for, in dir, anew each time.
// The certificate is good for hosts, 127.0.0.1 and localhost.
func newAccess(o Options, dir string, hosts []netip.Addr) (access, error) {
	a := access{config: make(map[string]any)}
	var err error
	switch {
	case o.User != "":
		a.config["authorization"] = map[string]any{"user": o.User, "password": o.Password}
	case o.Token != "":
		a.config["authorization"] = map[string]any{"token": o.Token}
	case o.NKey:
		err = a.keyPair(dir)
	case o.Credentials:
		err = a.operator(dir)
	}
	if err == nil && o.TLS {
		err = a.certificates(dir, hosts)
	}
	if err != nil {
		return access{}, fmt.Errorf("natsserver: make keys: %w", err)
	}
	return a, nil
}

// identity is one of NATS's key pairs, with its two texts.
type identity struct {
	pair   nkeys.KeyPair
	public string
	seed   []byte
}

func newIdentity(create func() (nkeys.KeyPair, error)) (identity, error) {
	pair, err := create()
	if err != nil {
		return identity{}, err
	}
	public, err1 := pair.PublicKey()
	seed, err2 := pair.Seed()
	return identity{pair, public, seed}, errors.Join(err1, err2)
}

// keyPair lets in one user who signs the server's challenge.
func (a *access) keyPair(dir string) error {
	user, err := newIdentity(nkeys.CreateUser)
	if err != nil {
		return err
	}
	a.seedFile = filepath.Join(dir, "user.nk")
	a.config["authorization"] = map[string]any{"users": []any{map[string]any{"nkey": user.public}}}
	return os.WriteFile(a.seedFile, user.seed, 0o600)
}

// operator sets up operator mode as a hosted NATS has it: an operator, the account for
// the system and one for work, whose user has a credentials file.
func (a *access) operator(dir string) error {
	var made [4]identity
	for i, create := range []func() (nkeys.KeyPair, error){
		nkeys.CreateOperator, nkeys.CreateAccount, nkeys.CreateAccount, nkeys.CreateUser,
	} {
		var err error
		if made[i], err = newIdentity(create); err != nil {
			return err
		}
	}
	operator, system, work, user := made[0], made[1], made[2], made[3]

	oc := jwt.NewOperatorClaims(operator.public)
	oc.Name = "operator"
	oc.SystemAccount = system.public
	sc := jwt.NewAccountClaims(system.public)
	sc.Name = "SYS"
	wc := jwt.NewAccountClaims(work.public)
	wc.Name = "WORK"
	// JetStream is off in an account until it has limits; -1 is none.
	wc.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	uc := jwt.NewUserClaims(user.public)
	uc.Name = "worker"

	operatorJWT, err1 := oc.Encode(operator.pair)
	systemJWT, err2 := sc.Encode(operator.pair)
	workJWT, err3 := wc.Encode(operator.pair)
	userJWT, err4 := uc.Encode(work.pair)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	file, err := jwt.FormatUserConfig(userJWT, user.seed)
	if err != nil {
		return err
	}
	a.config["operator"] = operatorJWT
	a.config["system_account"] = system.public
	a.config["resolver"] = "MEMORY"
	a.config["resolver_preload"] = map[string]any{system.public: systemJWT, work.public: workJWT}
	a.credentialsFile = filepath.Join(dir, "user.creds")
	return os.WriteFile(a.credentialsFile, file, 0o600)
}

// certificates makes an authority and a server's certificate signed by it. Nobody
// keeps the authority's key.
func (a *access) certificates(dir string, hosts []netip.Addr) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	from := time.Now().Add(-time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "natsserver test authority"},
		NotBefore: from, NotAfter: from.Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "natsserver"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, h := range hosts {
		leaf.IPAddresses = append(leaf.IPAddresses, h.AsSlice())
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	a.caFile = filepath.Join(dir, "ca.pem")
	certFile, keyFile := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	a.config["tls"] = map[string]any{"cert_file": certFile, "key_file": keyFile}
	return errors.Join(
		writePEM(a.caFile, "CERTIFICATE", caDER),
		writePEM(certFile, "CERTIFICATE", leafDER),
		writePEM(keyFile, "PRIVATE KEY", keyDER),
	)
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
