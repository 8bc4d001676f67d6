package hub

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub/query"
)

const maxPage = 100 // rows: Microsoft Learn, "IoT Hub query language for device and module twins, jobs, and message routing"

// Page is a page of what was asked for.
type Page struct {
	Type         string // of the items, as in x-ms-item-type: Twin, Raw, DeviceJob or JobResponse
	Items        []any  // JSON values
	Continuation string // for the next page; "" when this was the last
}

// Query runs a query of twins or of what jobs did, and answers at most size rows, or 100 if size is 0 or more than that,
// from where continuation says, or from the beginning if it is "". Unlike the cloud's, whose index lags behind for seconds,
// each row is as it is now. Rows that come and go between two pages are seen or not; all others are seen once.
func (h *Hub) Query(text string, size int, continuation string) (Page, error) {
	q, err := h.queries().Parse(text)
	if err != nil {
		return Page{}, badQuery(err)
	}
	if size == 0 || size > maxPage {
		size = maxPage
	}
	from := mark{Query: fingerprint(text), Left: q.Top}
	if continuation != "" {
		m, err := readMark(continuation, from.Query)
		if err != nil {
			return Page{}, err
		}
		from = m
	}
	limit := size
	if q.Top > 0 {
		limit = min(size, from.Left)
	}
	var found []marked
	switch {
	case q.Aggregates():
		found = h.queryGroups(q, from.After, limit+1)
	case q.Source == query.Jobs:
		found = h.queryJobs(q, from.After, limit+1)
	default:
		found = h.queryTwins(q, from.After, limit+1)
	}
	page := Page{Type: itemType(q), Items: make([]any, 0, min(limit, len(found)))}
	for _, f := range found[:min(limit, len(found))] {
		page.Items = append(page.Items, f.item)
	}
	if len(found) > limit && (q.Top == 0 || limit < from.Left) {
		next := mark{Query: from.Query, After: found[limit-1].key}
		if q.Top > 0 {
			next.Left = from.Left - limit
		}
		page.Continuation = next.String()
	}
	return page, nil
}

// queries is the query language as this hub speaks it.
func (h *Hub) queries() query.Language {
	return query.Language{NumberAggregates: h.Chose(UnnamedAggregate, "number"), DeviceAggregates: h.Chose(ModuleAggregates, "refuse")}
}

// badQuery says where a query goes wrong, behind the one word that a hub says.
func badQuery(err error) *Error { return argument("BadRequest: %s", err.Error()) }

func itemType(q *query.Query) string {
	switch {
	case !q.All():
		return "Raw"
	case q.Source == query.Jobs:
		return "DeviceJob"
	}
	return "Twin"
}

// marked is an item and the key that a next page would begin behind.
type marked struct {
	key  string
	item any
}

func (h *Hub) queryTwins(q *query.Query, after string, limit int) []marked {
	var found []marked
	h.rows(q.Source == query.Modules, parseKey(after), func(r *row) bool {
		if !q.Meets(r) {
			return true
		}
		var item any
		if q.All() {
			item = r.show()
		} else {
			item = q.Project(r)
		}
		found = append(found, marked{r.n.id.String(), item})
		return len(found) < limit
	})
	return found
}

// parseKey reads the text of an ID.
func parseKey(key string) (id ID) {
	id.Device, id.Module, _ = strings.Cut(key, "/")
	return id
}

func (h *Hub) queryGroups(q *query.Query, after string, limit int) []marked {
	groups := q.NewGroups()
	h.rows(q.Source == query.Modules, ID{}, func(r *row) bool {
		if q.Meets(r) {
			groups.Add(r)
		}
		return true
	})
	var found []marked
	for _, g := range groups.Rows() {
		key := "=" + g.Key // the group of what is not there has the key ""
		if key > after && len(found) < limit {
			found = append(found, marked{key, g.Value})
		}
	}
	return found
}

// mark is where a page has ended. It names the last row rather than a count of rows, so that rows that come and go move
// nothing.
type mark struct {
	Query string `json:"q"` // fingerprint
	After string `json:"a"`
	Left  int    `json:"l,omitempty"` // of TOP
}

// String is the token that a client gets, which it can't tell anything by.
func (m mark) String() string { return base64.StdEncoding.EncodeToString(encode(m)) }

func readMark(token, query string) (mark, *Error) {
	var m mark
	raw, err := base64.StdEncoding.DecodeString(token)
	switch {
	case err != nil || json.Unmarshal(raw, &m) != nil || m.Left < 0:
		return m, argument("x-ms-continuation is not a token of this hub")
	case m.Query != query:
		return m, argument("x-ms-continuation is of another query; send the query that it came with")
	}
	return m, nil
}

func fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
