package camera

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
)

// address is a checked Config.URL.
type address struct {
	url      *base.URL // with credentials
	host     string    // host:port to connect to
	shown    string    // for errors and logs
	password string
	protocol gortsplib.Protocol
}

// parseAddress checks what a person typed. Its errors are of kind BadURL and
// show nothing that may be a password.
func parseAddress(cfg *Config) (*address, *Error) {
	bad := func(format string, args ...any) (*address, *Error) {
		e := problem(BadURL, format, args...)
		e.URL = redact(cfg.URL)
		return nil, e
	}
	if strings.TrimSpace(cfg.URL) == "" {
		e := problem(BadURL, "the URL is empty")
		e.URL = "camera"
		return nil, e
	}
	if scheme, _, ok := strings.Cut(cfg.URL, "://"); !ok || !isRTSP(scheme) {
		return bad("not an RTSP URL, which begins with rtsp:// or rtsps://")
	}
	u, err := base.ParseURL(cfg.URL)
	if err != nil {
		var parse *url.Error // its text repeats the whole URL
		if errors.As(err, &parse) {
			err = parse.Err
		}
		// "invalid port \":pass@…\"" and the like quote pieces of the URL.
		text, _, _ := strings.Cut(err.Error(), "\"")
		return bad("not an RTSP URL: %s", strings.TrimSpace(text))
	}
	if u.Hostname() == "" {
		return bad("the URL names no host")
	}
	port := u.Port()
	if port == "" {
		port = "554"
		if u.Scheme == "rtsps" {
			port = "322"
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("port %s does not exist", port)
	}

	a := &address{url: u, host: net.JoinHostPort(u.Hostname(), port), shown: oneLine(redactPath(u.CloneWithoutCredentials().String()))}
	switch cfg.Transport {
	case "", "tcp":
		a.protocol = gortsplib.ProtocolTCP
	case "udp":
		a.protocol = gortsplib.ProtocolUDP
	default:
		return bad("transport %q is neither tcp nor udp", cfg.Transport)
	}
	if cfg.Username != "" || cfg.Password != "" {
		u.User = url.UserPassword(cfg.Username, cfg.Password)
	}
	if u.User != nil {
		a.password, _ = u.User.Password()
	}
	return a, nil
}

func isRTSP(scheme string) bool {
	return strings.EqualFold(scheme, "rtsp") || strings.EqualFold(scheme, "rtsps")
}

// redact takes out of a URL, well formed or not, what may be a password. A
// password may hold any character, also / and ?: all before the last @ goes.
func redact(s string) string {
	prefix, rest, ok := strings.Cut(s, "://")
	if ok {
		prefix += "://"
	} else {
		prefix, rest = "", s
	}
	return oneLine(prefix + redactPath(rest[strings.LastIndexByte(rest, '@')+1:]))
}

// redactPath takes out the value of each pass, passwd, password and pwd in path
// or query, where several makers want it (/user=admin_password=…_channel=1.sdp,
// /h264?usr=admin&pwd=…).
func redactPath(s string) string {
	lower := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.ToValidUTF8(s, "?")
	var b strings.Builder
	for {
		at := -1
		for _, word := range [...]string{"password=", "passwd=", "pass=", "pwd="} {
			if i := strings.Index(lower, word); i >= 0 && (at < 0 || i+len(word) < at) {
				at = i + len(word)
			}
		}
		if at < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:at])
		b.WriteString("***")
		next := strings.IndexAny(s[at:], "&/;")
		if next < 0 {
			return b.String()
		}
		s, lower = s[at+next:], lower[at+next:]
	}
}
