package haproxy

import (
	"testing"
)

func TestServersThatAreDeletedAndAddedAgainDoNotGoBack(t *testing.T) {
	for _, deleted := range []string{"for some polls", "between two polls"} {
		t.Run(deleted, func(t *testing.T) {
			rows := func(others, stot string) string {
				out := "app,web,1," + others + ",2,UP,2,\n"
				if stot != "" {
					out += "app,new,1," + stot + ",2,UP,2,\n"
				}
				return out + "app,BACKEND,1," + others + ",2,UP,1,\n"
			}
			s := newStub(t, says(dump(1, 100, 5, rows("100", "500"))))
			c := collector(t, Config{Targets: []Target{{Address: s.path}}})
			want := func(others, stot, total string) {
				t.Helper()
				s.set(says(dump(1, 100, 5, rows(others, stot))))
				table := poll(t, c).Table
				if stot != "" {
					if got := cell(t, table, "app", "new", "stot"); got != total {
						t.Errorf("it has %s sessions, want %s", got, total)
					}
				}
				if got := cell(t, table, "app", "web", "stot"); got != others {
					t.Errorf("the other server has %s sessions, want %s", got, others)
				}
			}
			want("100", "500", "500")
			// The traffic of others hides what is missing from the sum of all.
			if deleted == "for some polls" {
				want("1000", "", "")
				want("2000", "", "")
			}
			want("3000", "3", "503")
			want("4000", "4", "504")
			want("9000", "1", "505")
			want("9000", "0", "505") // nobody else counts anything
		})
	}
}

func TestMarksTellWhatWentBack(t *testing.T) {
	const head = "# pxname,svname,stot,bin,chkfail,type,\n"
	of := func(rows string) marks {
		table, err := ParseCSV([]byte(head + rows + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return table.marks(nil)
	}
	before := of("a,s,5,100,1,2,\na,\"t,u\",7,0,0,2,\n")
	for _, c := range []struct {
		name, rows string
		want       bool
	}{
		{"the same", "a,s,5,100,1,2,\na,\"t,u\",7,0,0,2,\n", false},
		{"more", "a,s,6,100,1,2,\na,\"t,u\",7,10,0,2,\n", false},
		{"one row less", "a,s,900,100,1,2,\na,\"t,u\",6,0,0,2,\n", true},
		{"failed checks alone less", "a,s,5,100,0,2,\na,\"t,u\",7,0,0,2,\n", true},
		{"another name in its place", "a,s,5,100,1,2,\na,\"t,v\",70,0,0,2,\n", true},
		{"another proxy", "a,s,5,100,1,2,\nb,\"t,u\",70,0,0,2,\n", true},
		{"a row that is gone", "a,s,50,100,1,2,\n", true},
		{"turned round", "a,\"t,u\",700,0,0,2,\na,s,500,100,1,2,\n", true},
	} {
		if after := of(c.rows); after.wentBack(&before) != c.want {
			t.Errorf("%s: went back is %v", c.name, !c.want)
		}
	}
}
