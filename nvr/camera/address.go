package camera

import (
	"errors"
	"net"
	"net/url"
	"regexp"
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
	secrets  []string  // that shown leaves out, and the password
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

	a := &address{url: u, host: net.JoinHostPort(u.Hostname(), port)}
	a.shown, a.secrets = hide(u.CloneWithoutCredentials().String())
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
		if password, _ := u.User.Password(); password != "" {
			a.secrets = append(a.secrets, password)
		}
	}
	return a, nil
}

func isRTSP(scheme string) bool {
	return strings.EqualFold(scheme, "rtsp") || strings.EqualFold(scheme, "rtsps")
}

// redact takes out of a URL, well formed or not, what may be a secret. A
// password may hold any character, also / and ?: all before the last @ goes.
func redact(s string) string {
	scheme, rest := cutScheme(s)
	shown, _ := hide(scheme + rest[strings.LastIndexByte(rest, '@')+1:])
	return shown
}

func cutScheme(s string) (scheme, rest string) {
	if i := strings.Index(s, "://"); i >= 0 {
		return s[:i+3], s[i+3:]
	}
	return "", s
}

var (
	// Several makers want the password in path or query
	// (/user=admin_password=…_channel=1.sdp, /h264?usr=admin&pwd=…).
	password = regexp.MustCompile(`(?i)(?:passw(?:or)?d|pass|pwd)=([^&/;]+)`)
	// Of others the path is all the secret there is (/9xTqBw3kLmZpVr2s).
	token = regexp.MustCompile(`[\pL\pN_%-]{12,}`)
	value = regexp.MustCompile(`=([^&]+)`)
)

// hide takes out of a URL without credentials the values of its query, passwords
// wherever they stand, and each run of 12 or more letters and digits of its path,
// which may be a token. secrets are what it took out that is long enough to be
// known again in other text.
func hide(s string) (shown string, secrets []string) {
	scheme, rest := cutScheme(strings.ToValidUTF8(s, "?"))
	take := func(text string, of *regexp.Regexp) string {
		var b strings.Builder
		at := 0
		for _, m := range of.FindAllStringSubmatchIndex(text, -1) {
			from, to := m[len(m)-2], m[len(m)-1] // the group, or the whole
			if to-from >= leastSecret {
				secrets = append(secrets, text[from:to])
			}
			b.WriteString(text[at:from] + "***")
			at = to
		}
		return b.String() + text[at:]
	}
	rest = take(rest, password)
	host, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	path, query, hasQuery := strings.Cut(path, "?")
	shown = scheme + host + take(path, token)
	if hasQuery {
		shown += "?" + take(take(query, value), token)
	}
	return oneLine(shown), secrets
}

// leastSecret is from where on a text is looked for in what a camera says; a
// shorter one, as channel=1 has, stands everywhere.
const leastSecret = 6
