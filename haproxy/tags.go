package haproxy

import (
	"fmt"
	"strings"
	"sync"
)

// A Tag is what HAProxy itself says of a field (management guide, 9.2 "Typed output
// format"), such as MCP:u64. The zero Tag says nothing.
type Tag struct {
	// Origin is M metric, S status, K key, C configuration or P product.
	Origin byte
	// Nature is A age, a average, C counter, D duration, G gauge, L limit, M maximum,
	// m minimum, N name, O free output, R rate, T time.
	Nature byte
	// Scope is C cluster, S service, s system, P process.
	Scope byte
	// Persistence is V volatile, or P where the value may outlive a reload, in memory that
	// processes share. 0 is not said: before HAProxy 3.3, and in JSON.
	Persistence byte
	// Value is the type of the value: u32, s32, u64, s64, flt, str.
	Value string
}

func (t Tag) String() string {
	if t == (Tag{}) {
		return ""
	}
	letters := []byte{t.Origin, t.Nature, t.Scope, t.Persistence}
	if t.Persistence == 0 {
		letters = letters[:3]
	}
	return string(letters) + ":" + t.Value
}

// ParseTag reads what String writes.
func ParseTag(s string) (Tag, error) {
	letters, value, ok := strings.Cut(s, ":")
	if !ok || len(letters) < 3 || value == "" {
		return Tag{}, fmt.Errorf("haproxy: %q is no tag such as MCP:u64", s)
	}
	return makeTag([]byte(letters), value), nil
}

// makeTag makes a tag of its letters, three at least. HAProxy 3.3 added a fourth; what
// others may add is left out.
func makeTag(letters []byte, value string) Tag {
	t := Tag{Origin: letters[0], Nature: letters[1], Scope: letters[2], Value: value}
	if len(letters) > 3 {
		t.Persistence = letters[3]
	}
	return t
}

// Tags are the tags of the fields by name, and by the type of the row.
type Tags map[string][types]Tag

// builtIn are the tags of HAProxy 2.6.12, for when a process cannot be asked.
var builtIn = sync.OnceValue(func() Tags { return readTags(builtInTags) })

// readTags reads a table of tags.
func readTags(table string) Tags {
	tags := make(Tags, strings.Count(table, "\n"))
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		var byType [types]Tag
		for t, word := range words[1:] {
			if word != "-" {
				tag, err := ParseTag(word)
				if err != nil {
					panic(err) // a test reads all lines
				}
				byType[t] = tag
			}
		}
		tags[words[0]] = byType
	}
	return tags
}

// fieldsOf are the fields of a table of tags, in its order.
func fieldsOf(table string) (names []string) {
	for line := range strings.Lines(table) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names
}

// laterTags has the tags of fields that came after 2.6, or that 2.6 has not of such rows, as
// HAProxy 3.5-dev5 writes them. 3.4 has all but cache_hint_hits; the first three are of 3.0.
const laterTags = `lbtot MCP:u64 - - MCP:u64
cli_abrt MCP:u64 - - MCP:u64
srv_abrt MCP:u64 - - MCP:u64
srid - - MCP:u32 -
sess_other MCP:u64 - - -
h1sess MCP:u64 - - -
h2sess MCP:u64 - - -
h3sess MCP:u64 - - -
req_other MCP:u64 - - -
h1req MCP:u64 - - -
h2req MCP:u64 - - -
h3req MCP:u64 - - -
conn_tot - - - MCP:u64
proto - - - SGP:str
priv_idle_cur - - MGP:u32 -
reqbin MCP:u64 MCP:u64 MCP:u64 MCP:u64
reqbout MCP:u64 MCP:u64 MCP:u64 MCP:u64
resbin MCP:u64 MCP:u64 MCP:u64 MCP:u64
resbout MCP:u64 MCP:u64 MCP:u64 MCP:u64
ssl_ocsp_staple MCP:u64 MCP:u64 MCP:u64 MCP:u64
ssl_failed_ocsp_staple MCP:u64 MCP:u64 MCP:u64 MCP:u64
cache_hint_hits MCP:u64 MCP:u64 - -
`

// builtInTags has the tags of a frontend, a backend, a server and a listener, as
// HAProxy 2.6.12 writes them ("show stat typed"). The fields of agents, throttle,
// tracked, hanafail and src_ilim, which it writes only where they are in use, are as its
// management guide has them.
const builtInTags = `pxname KNS:str KNS:str KNS:str KNS:str
svname KNS:str KNS:str KNS:str KNS:str
qcur - MGP:u32 MGP:u32 -
qmax - MMP:u32 MMP:u32 -
scur MGP:u32 MGP:u32 MGP:u32 MGP:u32
smax MMP:u32 MMP:u32 MMP:u32 MMP:u32
slim CLP:u32 CLP:u32 CLP:u32 CLP:u32
stot MCP:u64 MCP:u64 MCP:u64 MCP:u64
bin MCP:u64 MCP:u64 MCP:u64 MCP:u64
bout MCP:u64 MCP:u64 MCP:u64 MCP:u64
dreq MCP:u64 MCP:u64 - MCP:u64
dresp MCP:u64 MCP:u64 MCP:u64 MCP:u64
ereq MCP:u64 - - MCP:u64
econ - MCP:u64 MCP:u64 -
eresp - MCP:u64 MCP:u64 -
wretr - MCP:u64 MCP:u64 -
wredis - MCP:u64 MCP:u64 -
status SGP:str SGP:str SGP:str SGP:str
weight - MaP:u32 MaP:u32 -
act - MGP:u32 SGP:u32 -
bck - MGP:u32 SGP:u32 -
chkfail - - MCP:u64 -
chkdown - MCP:u64 MCP:u64 -
lastchg - MAP:u32 MAP:u32 -
downtime - MCP:u32 MCP:u32 -
qlimit - - CGS:u32 -
pid KGP:u32 KGP:u32 KGP:u32 KGP:u32
iid KGS:u32 KGS:u32 KGS:u32 KGS:u32
sid KGS:u32 KGS:u32 KGS:u32 KGS:u32
throttle - - MaP:u32 -
lbtot - MCP:u64 MCP:u64 -
tracked - - CNS:str -
type CGS:u32 CGS:u32 CGS:u32 CGS:u32
rate MRP:u32 MGP:u32 MRP:u32 -
rate_lim CLP:u32 - - -
rate_max MMP:u32 MGP:u32 MMP:u32 -
check_status - - MOP:str -
check_code - - MOP:u32 -
check_duration - - MDP:u64 -
hrsp_1xx MCP:u64 MCP:u64 MCP:u64 -
hrsp_2xx MCP:u64 MCP:u64 MCP:u64 -
hrsp_3xx MCP:u64 MCP:u64 MCP:u64 -
hrsp_4xx MCP:u64 MCP:u64 MCP:u64 -
hrsp_5xx MCP:u64 MCP:u64 MCP:u64 -
hrsp_other MCP:u64 MCP:u64 MCP:u64 -
hanafail - - MCP:u64 -
req_rate MRP:u32 - - -
req_rate_max MMP:u32 - - -
req_tot MCP:u64 MCP:u64 MCP:u64 -
cli_abrt - MCP:u64 MCP:u64 -
srv_abrt - MCP:u64 MCP:u64 -
comp_in MCP:u64 MCP:u64 - -
comp_out MCP:u64 MCP:u64 - -
comp_byp MCP:u64 MCP:u64 - -
comp_rsp MCP:u64 MCP:u64 - -
lastsess - MAP:s32 MAP:s32 -
last_chk - - MOP:str -
last_agt - - MOP:str -
qtime - MaP:u32 MaP:u32 -
ctime - MaP:u32 MaP:u32 -
rtime - MaP:u32 MaP:u32 -
ttime - MaP:u32 MaP:u32 -
agent_status - - MOP:str -
agent_code - - MOP:u32 -
agent_duration - - MDP:u64 -
check_desc - - MOP:str -
agent_desc - - MOP:str -
check_rise - - CGS:u32 -
check_fall - - CGS:u32 -
check_health - - CGS:u32 -
agent_rise - - CGS:u32 -
agent_fall - - CGS:u32 -
agent_health - - CGS:u32 -
addr - - CGS:str CGS:str
cookie - CNS:str CNS:str -
mode CGS:str CGS:str CGS:str CGS:str
algo - CGS:str - -
conn_rate MRP:u32 - - -
conn_rate_max MMP:u32 - - -
conn_tot MCP:u64 - - -
intercepted MCP:u64 - - -
dcon MCP:u64 - - MCP:u64
dses MCP:u64 - - MCP:u64
wrew MCP:u64 MCP:u64 MCP:u64 MCP:u64
connect - MCP:u64 MCP:u64 -
reuse - MCP:u64 MCP:u64 -
cache_lookups MCP:u64 MCP:u64 - -
cache_hits MCP:u64 MCP:u64 - -
srv_icur - - MGP:u32 -
src_ilim - - CLP:u32 -
qtime_max - MMP:u32 MMP:u32 -
ctime_max - MMP:u32 MMP:u32 -
rtime_max - MMP:u32 MMP:u32 -
ttime_max - MMP:u32 MMP:u32 -
eint MCP:u64 MCP:u64 MCP:u64 MCP:u64
idle_conn_cur - - MGP:u32 -
safe_conn_cur - - MGP:u32 -
used_conn_cur - - MGP:u32 -
need_conn_est - - MGP:u32 -
uweight - MaP:u32 MaP:u32 -
agg_server_status - MGP:u32 - -
agg_server_check_status - MGP:u32 - -
agg_check_status - MGP:u32 - -
ssl_sess MCP:u64 MCP:u64 MCP:u64 MCP:u64
ssl_reused_sess MCP:u64 MCP:u64 MCP:u64 MCP:u64
ssl_failed_handshake MCP:u64 MCP:u64 MCP:u64 MCP:u64
h2_headers_rcvd MCP:u64 MCP:u64 - -
h2_data_rcvd MCP:u64 MCP:u64 - -
h2_settings_rcvd MCP:u64 MCP:u64 - -
h2_rst_stream_rcvd MCP:u64 MCP:u64 - -
h2_goaway_rcvd MCP:u64 MCP:u64 - -
h2_detected_conn_protocol_errors MCP:u64 MCP:u64 - -
h2_detected_strm_protocol_errors MCP:u64 MCP:u64 - -
h2_rst_stream_resp MCP:u64 MCP:u64 - -
h2_goaway_resp MCP:u64 MCP:u64 - -
h2_open_connections MGP:u64 MGP:u64 - -
h2_backend_open_streams MGP:u64 MGP:u64 - -
h2_total_connections MCP:u64 MCP:u64 - -
h2_backend_total_streams MCP:u64 MCP:u64 - -
h1_open_connections MGP:u64 MGP:u64 - -
h1_open_streams MGP:u64 MGP:u64 - -
h1_total_connections MCP:u64 MCP:u64 - -
h1_total_streams MCP:u64 MCP:u64 - -
h1_bytes_in MCP:u64 MCP:u64 - -
h1_bytes_out MCP:u64 MCP:u64 - -
h1_spliced_bytes_in MCP:u64 MCP:u64 - -
h1_spliced_bytes_out MCP:u64 MCP:u64 - -
`
