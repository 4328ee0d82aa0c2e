package imagechange

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/upstream"
)

// The codes of warnings: consequences that a caller has to accept by name.
const (
	WarningNotebookRunning      = "NOTEBOOK_RUNNING"
	WarningNotebookIDChanges    = "NOTEBOOK_ID_CHANGES"
	WarningContainerDataLost    = "CONTAINER_DATA_LOST"
	WarningAddressesChange      = "ADDRESSES_CHANGE"
	WarningMountsNotRestored    = "MOUNTS_NOT_RESTORED"
	WarningAcceleratorMayBeLost = "ACCELERATOR_MAY_BE_LOST"
)

// plan is what a change would do.
type plan struct {
	row       *inventory.Row
	source    inventory.Source
	change    *notebookv1.ImageChange
	unchanged bool                  // the notebook has the image already
	spec      upstream.NotebookSpec // of the new notebook, where one is made
}

// plan makes every check of a change that can be made without changing anything.
func (c *Changer) plan(ctx context.Context, req Request) (*plan, error) {
	row, ok := c.inventory.Snapshot().Get(req.Notebook)
	if !ok {
		return nil, ErrNotFound
	}
	source, ok := c.inventory.Source(row.Cloud)
	if !ok {
		return nil, ErrNotFound
	}
	can := source.Provider.Capabilities()
	if err := fits(req, can); err != nil {
		return nil, err
	}
	if req.Etag != "" && req.Etag != row.Notebook.GetEtag() {
		return nil, ErrEtag
	}
	p := &plan{row: row, source: source, change: &notebookv1.ImageChange{
		Notebook:  req.Notebook,
		FromImage: row.Notebook.GetImage().GetUri(),
		ToImage:   req.Image,
		ImageType: req.ImageType,
	}}
	now := timestamppb.Now()
	p.change.CreateTime, p.change.UpdateTime = now, now
	if can.ChangeImage == upstream.ChangeImageRecreate {
		if err := c.planRecreate(ctx, req, p); err != nil {
			return nil, err
		}
	} else {
		p.change.Steps = []string{"change the image in the cloud", "read the notebook until it shows the image"}
		p.change.Warnings = inPlaceWarnings(row.Notebook)
	}
	if hasImage(row.Notebook, p.change) && req.Credential == nil {
		p.unchanged, p.change.Warnings, p.change.Steps = true, nil, nil
	}
	return p, nil
}

// fits checks a request against what the cloud can do.
func fits(req Request, can upstream.Capabilities) error {
	if can.ChangeImage == upstream.ChangeImageUnsupported {
		return ErrNotSupported
	}
	switch {
	case len(can.ImageTypes) == 0 && req.ImageType != "":
		return &FieldError{"image_type", "this cloud takes none"}
	case len(can.ImageTypes) > 0 && !slices.Contains(can.ImageTypes, req.ImageType):
		return &FieldError{"image_type", "must be one of " + strings.Join(can.ImageTypes, ", ")}
	case req.Credential != nil && !can.RegistryCredential:
		return &FieldError{"registry_credential", "this cloud takes none"}
	}
	return nil
}

func warning(code, message string) *notebookv1.ImageChange_Warning {
	return &notebookv1.ImageChange_Warning{Code: code, Message: message}
}

func inPlaceWarnings(n *notebookv1.Notebook) []*notebookv1.ImageChange_Warning {
	if n.GetState() == notebookv1.Notebook_STATE_STOPPED {
		return nil
	}
	return []*notebookv1.ImageChange_Warning{warning(WarningNotebookRunning,
		"The notebook is not stopped. The cloud may refuse, or unsaved work in it may be lost. Stop it first, or acknowledge.")}
}

// planRecreate plans a change that makes another notebook. It resolves the image.
func (c *Changer) planRecreate(ctx context.Context, req Request, p *plan) error {
	recreator, ok := p.source.Provider.(upstream.Recreator)
	if !ok {
		return ErrNotSupported
	}
	n := p.row.Notebook
	switch n.GetState() {
	case notebookv1.Notebook_STATE_CREATING, notebookv1.Notebook_STATE_STOPPING:
		return ErrBusy
	default:
	}
	location, _ := p.row.Address()
	a := n.GetResources().GetAccelerator()
	image, err := recreator.ResolveImage(ctx, location, req.Image, a.GetType())
	if err != nil {
		return err
	}
	p.change.ToImage = image.URI
	p.spec = upstream.NotebookSpec{Image: image, Accelerator: a.GetType(), Cards: a.GetCount(), ResourceGroup: n.GetResourceGroup().GetCode()}
	running := n.GetState() == notebookv1.Notebook_STATE_RUNNING || n.GetState() == notebookv1.Notebook_STATE_STARTING
	if running {
		p.change.Steps = append(p.change.Steps, "stop the notebook, keeping what is in its file system")
		p.change.Warnings = append(p.change.Warnings, warning(WarningNotebookRunning, "The notebook is running. It is stopped: what its processes hold in memory is lost."))
	}
	p.change.Steps = append(p.change.Steps, "make another notebook with the image", "wait until it runs")
	if !running {
		p.change.Steps = append(p.change.Steps, "stop it, as the old one is")
	}
	p.change.Steps = append(p.change.Steps, "give it the name of the old one", "release the old one")
	p.change.Warnings = append(p.change.Warnings,
		warning(WarningNotebookIDChanges, "The cloud cannot change an image: another notebook is made, with another id, and the old one is released."),
		warning(WarningContainerDataLost, "What is in the file system of the old notebook, outside of its mounts, is lost."),
		warning(WarningAddressesChange, "Addresses, ports and passwords of the notebook change, and its own service has to be started again."),
		warning(WarningMountsNotRestored, "Only the home directory is mounted again: the cloud does not tell what else was mounted."),
	)
	if cards := a.GetCount(); cards > 0 {
		needs := "The new notebook needs a free card. If there is none, the change fails and the old notebook is started again, if it can be."
		if cards > 1 {
			needs = fmt.Sprintf("The new notebook needs %d free cards. If there are none, the change fails and the old notebook is started again, if it can be.", cards)
		}
		p.change.Warnings = append(p.change.Warnings, warning(WarningAcceleratorMayBeLost, needs))
	}
	return nil
}

// unacknowledged returns the warnings that a caller has not accepted.
func unacknowledged(warnings []*notebookv1.ImageChange_Warning, accepted []string) []*notebookv1.ImageChange_Warning {
	var open []*notebookv1.ImageChange_Warning
	for _, w := range warnings {
		if !slices.Contains(accepted, w.GetCode()) {
			open = append(open, w)
		}
	}
	return open
}

// hasImage reports whether a notebook has the image that a change is to bring.
func hasImage(n *notebookv1.Notebook, change *notebookv1.ImageChange) bool {
	return n.GetImage().GetUri() == change.GetToImage() && (change.GetImageType() == "" || n.GetImage().GetType() == change.GetImageType())
}
