package service

import (
	"context"
	"errors"
	"strings"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/imagechange"
	"github.com/notebookd/notebookd/internal/upstream"
)

// ChangeImage implements NotebookService.
func (s *Service) ChangeImage(ctx context.Context, req *notebookv1.ChangeImageRequest) (*notebookv1.ChangeImageResponse, error) {
	parts := strings.Split(req.GetName(), "/") // its form was checked by the contract's rules
	cloud, location := parts[1], parts[3]
	metadata := map[string]string{"cloud": cloud, "location": location, "notebook": req.GetName()}
	caller := s.caller(ctx)
	if !caller.rights().Operates(cloud, location) {
		return nil, errDenied(metadata)
	}
	change := imagechange.Request{
		Notebook: req.GetName(), Image: req.GetImage(), ImageType: req.GetImageType(), RequestID: strings.ToLower(req.GetRequestId()), Etag: req.GetEtag(),
		ValidateOnly: req.GetValidateOnly(), Acknowledge: req.GetAcknowledge(), Principal: caller.Name, Reason: req.GetReason(),
	}
	if req.GetWait() != nil {
		wait := req.GetWait().AsDuration()
		change.Wait = &wait
	}
	if c := req.GetRegistryCredential(); c != nil {
		change.Credential = &upstream.RegistryCredential{Username: c.GetUsername(), Password: upstream.NewSecret(c.GetPassword())}
	}
	result, notebook, err := s.changer.Change(ctx, change)
	if errors.Is(err, imagechange.ErrNotFound) {
		// Not there, or not to be known?
		if why := s.addressable(cloud, location, req.GetName(), metadata); why != nil {
			err = why
		}
	}
	if err != nil {
		return nil, s.toStatus(ctx, err, metadata)
	}
	return &notebookv1.ChangeImageResponse{Change: result, Notebook: notebook}, nil
}

// addressable tells a notebook that does not exist from one that cannot be
// known to.
func (s *Service) addressable(cloud, location, name string, metadata map[string]string) error {
	snapshot := s.inventory.Snapshot()
	if _, ok := snapshot.Get(name); ok {
		return nil
	}
	addressed := scope{cloud: cloud, location: location, rights: everything{}} // who may change it may see it
	locations, unknown, err := addressed.selected(snapshot)
	if err != nil {
		return err
	}
	for _, l := range locations {
		switch {
		case l.State == notebookv1.Location_STATE_DISABLED:
			return cloudStatus(&upstream.Error{Cloud: cloud, Location: location, Kind: upstream.KindDisabled}, metadata)
		case !l.LastSuccess.IsZero():
			return notFound(notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND, "no such notebook is known", metadata)
		}
	}
	return nothingKnown(locations, unknown, addressed)
}
