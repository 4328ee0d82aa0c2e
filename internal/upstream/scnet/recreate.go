package scnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/notebookd/notebookd/internal/upstream"
)

// The steps of replacing a notebook: upstream.Recreator. Each is one call and one
// attempt. The cloud has no key by which it would know a call that it got
// already, so that no write is sent again unless its token was refused (see
// request.repeatable).

const (
	// imagesPage is how many images a page is asked for.
	imagesPage = 100
	// maxImagePages bounds the requests of one search through one list of images.
	maxImagePages = 100
	// usable is the status of an image that can be run.
	usable = "Completed"
)

// imageList is one of the cloud's lists of images.
type imageList struct {
	path string
	body func(page, offset int) any
}

// imageLists are searched in this order.
var imageLists = []imageList{imagesWith("public"), imagesWith("private"), {"/image/models", func(page, _ int) any {
	return struct {
		Page int `json:"page"`
		Size int `json:"size"`
	}{page, imagesPage}
}}}

func imagesWith(access string) imageList {
	return imageList{"/image/images", func(_, offset int) any {
		return struct {
			Access  string `json:"access"`
			Start   int    `json:"start"`
			Limit   int    `json:"limit"`
			Sort    string `json:"sort"`
			OrderBy string `json:"orderBy"`
		}{access, offset, imagesPage, "DESC", "create_time"}
	}}
}

// ResolveImage implements upstream.Recreator. A text with a slash is a full
// reference, which has to be the same as that of an image; any other is a name
// and tag. The public images come first, then the account's own, then those with
// a model. The first one that is complete and for the accelerator is taken.
//
// All are read and compared here: what the cloud's own filters match is not
// documented.
func (p *Provider) ResolveImage(ctx context.Context, region, wanted, accelerator string) (upstream.ImageRef, error) {
	if wanted == "" || accelerator == "" {
		return upstream.ImageRef{}, p.refuse(opImages, region, "the image or the accelerator is missing")
	}
	if err := p.allowed(opImages, region); err != nil {
		return upstream.ImageRef{}, err
	}
	why := "no list of images shows it"
	for _, list := range imageLists {
		var found *image
		err := p.searchImages(ctx, region, list, func(i image) bool {
			switch {
			case strings.Contains(wanted, "/") && string(i.Path) != wanted, !strings.Contains(wanted, "/") && i.nameTag() != wanted, i.Path == "":
			case !strings.EqualFold(string(i.AcceleratorType), accelerator):
				why = "it is for other accelerators"
			case !strings.EqualFold(string(i.Status), usable):
				why = "it is not complete"
			default:
				found = &i
			}
			return found != nil
		})
		if err != nil {
			return upstream.ImageRef{}, err
		}
		if found != nil {
			return upstream.ImageRef{URI: string(found.Path), Name: found.nameTag(), SizeBytes: found.size()}, nil
		}
	}
	return upstream.ImageRef{}, p.after(opImages, region, upstream.KindImageNotFound, why)
}

// searchImages reads a list of images page by page until done or at its end. Images
// that come and go meanwhile may be left out.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/container/getImages.html
// and https://www.scnet.cn/ac/openapi/doc/2.0/api/notebook/getModelImages.html
func (p *Provider) searchImages(ctx context.Context, region string, list imageList, done func(image) bool) error {
	seen := map[string]bool{}
	for n, offset := 1, 0; n <= maxImagePages; n++ {
		var rows []json.RawMessage
		var total int
		r := request{op: opImages, region: region, method: http.MethodPost, path: list.path, body: upstream.CompactJSON(list.body(n, offset))}
		err := p.ask(ctx, r, func(a answer, err error) error {
			if err != nil {
				return err
			}
			page, err := a.page(false)
			rows, total = page.rows, page.total
			return err
		})
		if err != nil {
			return err
		}
		fresh := false
		for _, row := range rows {
			var i image
			if json.Unmarshal(row, &i) != nil {
				continue // no image that could be wanted
			}
			if key := string(i.Path + "\n" + i.AcceleratorType); !seen[key] {
				seen[key], fresh = true, true
			}
			if done(i) {
				return nil
			}
		}
		offset += len(rows)
		switch {
		case len(rows) == 0:
			return nil
		case !fresh && total >= 0 && len(seen) >= total:
			return nil // the last page again
		case !fresh:
			return p.after(opImages, region, upstream.KindBadResponse, "a further page of images has only those of earlier ones")
		case len(rows) < imagesPage && offset >= total: // a total that is missing is -1
			return nil
		}
	}
	return p.after(opImages, region, upstream.KindBadResponse, fmt.Sprintf("the list of images has no end within %d pages", maxImagePages))
}

// Create implements upstream.Recreator. The home directory is mounted, which is
// the cloud's default; other mounts and a start command cannot be read of a
// notebook, and so are not carried over.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/notebook/create.html
func (p *Provider) Create(ctx context.Context, region string, spec upstream.NotebookSpec) (string, error) {
	switch {
	case !upstream.PlainSegment(region):
		return "", p.refuse(opCreate, region, "the region is missing")
	case spec.Image.URI == "" || spec.Image.Name == "" || spec.Image.SizeBytes < 0:
		return "", p.refuse(opCreate, region, "the image is missing")
	case spec.Accelerator == "" || spec.Cards < 1:
		return "", p.refuse(opCreate, region, "a notebook needs an accelerator and at least one card")
	}
	body := upstream.CompactJSON(struct {
		ClusterID         string `json:"clusterId"`
		ImagePath         string `json:"imagePath"`
		ImageName         string `json:"imageName"`
		ImageSize         string `json:"imageSize"` // the vendor's table has 120GB; its example and all clients have bytes
		AcceleratorType   string `json:"acceleratorType"`
		AcceleratorNumber string `json:"acceleratorNumber"`
		ResourceGroupCode string `json:"resourceGroupCode,omitempty"`
		MountHome         bool   `json:"mountHome"`
	}{
		region, spec.Image.URI, spec.Image.Name, strconv.FormatInt(spec.Image.SizeBytes, 10), strings.ToUpper(spec.Accelerator),
		strconv.Itoa(int(spec.Cards)), spec.ResourceGroup, true,
	})
	var id string
	err := p.write(ctx, opCreate, region, "/notebook/actions/create", body, func(a answer, err error) error {
		if err != nil {
			// No notebook of a caller's is named, so none can be missing.
			if e, ok := errors.AsType[*upstream.Error](err); ok && e.Kind == upstream.KindNotFound {
				e.Kind = upstream.KindRejected
			}
			return err
		}
		var data struct {
			NotebookID upstream.Text `json:"notebookId"`
		}
		if json.Unmarshal(a.data, &data) != nil || !upstream.UsableID(string(data.NotebookID)) {
			return bad("the answer names no notebook")
		}
		id = string(data.NotebookID)
		return nil
	})
	return id, err
}

// Stop implements upstream.Recreator.
// API: POST /ai/openapi/v2/notebook/actions/stop, of which there is no public page.
func (p *Provider) Stop(ctx context.Context, region, id string, keep bool) error {
	body := upstream.CompactJSON(struct {
		NotebookID string `json:"notebookId"`
		SaveEnv    bool   `json:"saveEnv"`
	}{id, keep})
	return p.act(ctx, opStop, region, id, "/notebook/actions/stop", body, func(a answer, err error) error {
		if e, ok := errors.AsType[*upstream.Error](err); ok && e.Code == codeStopped && e.Kind == upstream.KindConflict {
			return nil
		}
		return done(a, err)
	})
}

// Start implements upstream.Recreator.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/notebook/start.html
func (p *Provider) Start(ctx context.Context, region, id string) error {
	body := upstream.CompactJSON(struct {
		NotebookID string `json:"notebookId"`
	}{id})
	return p.act(ctx, opStart, region, id, "/notebook/actions/start", body, done)
}

// Rename implements upstream.Recreator.
// API: https://www.scnet.cn/ac/openapi/doc/2.0/api/notebook/name.html
func (p *Provider) Rename(ctx context.Context, region, id, name string) error {
	if strings.TrimSpace(name) == "" {
		return p.refuse(opRename, region, "the name is missing")
	}
	body := upstream.CompactJSON(struct {
		ID           string `json:"id"`
		NotebookName string `json:"notebookName"`
	}{id, name})
	return p.act(ctx, opRename, region, id, "/notebook/name", body, done)
}

// Release implements upstream.Recreator. It cannot be taken back.
// API: POST /ai/openapi/v2/notebook/actions/release, of which there is no public page.
func (p *Provider) Release(ctx context.Context, region, id string) error {
	body := upstream.CompactJSON(struct {
		ID string `json:"id"`
	}{id})
	return p.act(ctx, opRelease, region, id, "/notebook/actions/release", body, done)
}

// act makes a write that concerns one notebook.
func (p *Provider) act(ctx context.Context, op, region, id, path string, body []byte, decode func(answer, error) error) error {
	if !upstream.UsableID(id) {
		return p.refuse(op, region, "the notebook is missing")
	}
	return p.write(ctx, op, region, path, body, decode)
}

// write makes a call that changes something.
func (p *Provider) write(ctx context.Context, op, region, path string, body []byte, decode func(answer, error) error) error {
	if err := p.allowed(op, region); err != nil {
		return err
	}
	return p.ask(ctx, request{
		op: op, region: region, class: upstream.ClassWrite, method: http.MethodPost, path: path, body: body,
		platform: op == opCreate || op == opStart,
	}, decode)
}

// done reads the answer of a write that answers true. It means that the cloud
// will do it, not that it has.
func done(a answer, err error) error {
	if err == nil && string(a.data) == "false" {
		return bad("the answer says success, and that nothing was done")
	}
	return err
}

// allowed refuses a step that the configuration does not allow.
func (p *Provider) allowed(op, region string) error {
	if !p.cfg.ReadOnly {
		return nil
	}
	return &upstream.Error{
		Cloud: p.client.Cloud(), Location: region, Op: op, Kind: upstream.KindUnsupported, Err: errors.New("the setting read_only is on"),
	}
}

// after is an error that answers which were fine by themselves come to.
func (p *Provider) after(op, region string, kind upstream.Kind, why string) error {
	return &upstream.Error{Cloud: p.client.Cloud(), Location: region, Op: op, Kind: kind, Sent: true, Err: errors.New(why)}
}
