package wire

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"sync"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/object/s3"
)

const scheme = "s3://"

// parameters are those that the query of an address may have.
var parameters = [...]string{"profile", "endpoint", "region", "role"}

// words tell that a query was meant to hold a secret, and is no part of a key.
var words = [...]string{"secret", "password", "passwd", "token", "access_key", "accesskey", "access-key", "credential"}

// bucket is what distinguishes the stores of one process.
type bucket struct{ name, profile, endpoint, region, role string }

// address is one of S3.
type address struct {
	bucket
	key   string // or a prefix, or a pattern
	query string // as written, with its "?"; "" is none
}

func isS3(text string) bool { return strings.HasPrefix(text, scheme) }

// parse takes an address of S3 apart. Errors do not repeat what may be a secret.
func parse(text string) (address, error) {
	var a address
	rest := strings.TrimPrefix(text, scheme)
	if i := strings.LastIndexByte(rest, '?'); i >= 0 {
		isQuery, err := a.parameters(rest[i+1:])
		if err != nil {
			return address{}, err
		}
		if isQuery {
			rest, a.query = rest[:i], rest[i:]
		}
	}
	a.name, a.key, _ = strings.Cut(rest, "/")
	if err := s3.CheckBucket(a.name); err != nil {
		return address{}, err
	}
	return a, nil
}

// parameters reads a query. It reports false if that is a part of the key.
func (a *address) parameters(query string) (bool, error) {
	if query == "" {
		return true, nil
	}
	var unknown string
	seen := make(map[string]bool)
	for field := range strings.SplitSeq(query, "&") {
		name, value, ok := strings.Cut(field, "=")
		for _, w := range words {
			if ok && strings.Contains(strings.ToLower(name), w) {
				return false, refuse("an address holds no secrets, and this one has the parameter %q", name)
			}
		}
		target := map[string]*string{"profile": &a.profile, "endpoint": &a.endpoint, "region": &a.region, "role": &a.role}[name]
		if !ok || target == nil {
			unknown = name
			continue
		}
		decoded, err := url.QueryUnescape(value)
		if err != nil || decoded == "" {
			return false, refuse("the parameter %q has no value, or a %% that is no escape", name)
		}
		if seen[name] {
			return false, refuse("the parameter %q comes twice", name)
		}
		seen[name], *target = true, decoded
	}
	switch {
	case len(seen) == 0:
		return false, nil
	case unknown != "" || len(seen) < strings.Count(query, "&")+1:
		return false, refuse("the parameter %.40q is not known", unknown)
	case a.role != "" && !(strings.HasPrefix(a.role, "arn:") && strings.Contains(a.role, ":role/")):
		return false, refuse("the parameter %q is not the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME", "role")
	case a.endpoint != "":
		return true, s3.CheckEndpoint(a.endpoint)
	}
	return true, nil
}

func refuse(format, name string) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("an address of S3: "+format, name),
		"an address is s3://bucket/folder?"+strings.Join(parameters[:], "=…&")+
			"=…, its query is optional; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"))
}

// buckets holds the stores of whole buckets that this process has opened: connections
// and credentials are worth sharing, and there are as many as the user has buckets.
// It is the one variable of this package that changes.
var buckets struct {
	sync.Mutex
	open map[bucket]*s3.Store
}

// store returns the store of a folder in the bucket.
func (a address) store(folder string) (object.Store, error) {
	buckets.Lock()
	defer buckets.Unlock()
	root := buckets.open[a.bucket]
	if root == nil {
		var err error
		root, err = s3.New(context.Background(), s3.Config{Bucket: a.name, Profile: a.profile, Endpoint: a.endpoint, Region: a.region, Role: a.role})
		if err != nil {
			return nil, err
		}
		if buckets.open == nil {
			buckets.open = make(map[bucket]*s3.Store)
		}
		buckets.open[a.bucket] = root
	}
	return root.Sub(folder)
}

// Expand returns the addresses of the objects that an address of S3 stands for, in the
// order of keys: those below s3://bucket/folder/ (at any depth), or those whose last
// part matches the last part of s3://bucket/folder/*.mp4, as path.Match has it. Any
// other address, a path of this machine too, stands for itself.
//
// That nothing matches is an error wrapping [fs.ErrNotExist]. The markers that some
// tools make for folders (objects named "folder/") are left out.
func Expand(ctx context.Context, text string) ([]string, error) {
	if !isS3(text) {
		return []string{text}, nil
	}
	a, err := parse(text)
	if err != nil {
		return nil, err
	}
	folder, pattern := path.Split(a.key)
	if strings.Contains(folder, "*") {
		return nil, refuse("%.100q has a * in the name of a folder: only the last part may have one", a.key)
	}
	if pattern != "" && !strings.Contains(pattern, "*") {
		return []string{text}, nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, refuse("%.100q is no pattern: a [ has no ]", pattern)
	}
	store, err := a.store("")
	if err != nil {
		return nil, err
	}
	fixed, _, _ := strings.Cut(pattern, "*")
	if i := strings.IndexAny(fixed, `?[\`); i >= 0 {
		fixed = fixed[:i]
	}
	var found []string
	for info, err := range store.List(ctx, folder+fixed, "") {
		if err != nil {
			return nil, err
		}
		name := info.Key[len(folder):]
		if matches, _ := path.Match(pattern, name); strings.HasSuffix(name, "/") || pattern != "" && !matches {
			continue
		}
		found = append(found, a.of(info.Key))
	}
	if len(found) == 0 {
		err := fmt.Errorf("%s: no object matches: %w", text, fs.ErrNotExist)
		return nil, myrmidon.Permanent(myrmidon.WithHint(err, "look at what is in s3://"+a.name+"/"+folder))
	}
	return found, nil
}

// of returns the address of another key of the same bucket.
func (a address) of(key string) string {
	if a.query == "" && strings.Contains(key, "?") {
		return scheme + a.name + "/" + key + "?" // so that no part of key is a query
	}
	return scheme + a.name + "/" + key + a.query
}
