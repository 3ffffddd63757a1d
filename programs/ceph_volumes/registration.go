// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log"
	"os"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar tells the kubelet, which finds its socket, where the driver is.
type registrar struct {
	registration.UnimplementedRegistrationServer
	socket string
	done   string // a file that is there while the kubelet knows the driver
	end    context.CancelCauseFunc
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driverName, Endpoint: r.socket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, told *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !told.GetPluginRegistered() {
		// The kubelet asks again when the socket is made anew.
		r.end(fmt.Errorf("the kubelet does not register the driver: %s", told.GetError()))
		return &registration.RegistrationStatusResponse{}, nil
	}
	log.Print("The kubelet knows the driver.")
	return &registration.RegistrationStatusResponse{}, os.WriteFile(r.done, nil, 0o600)
}
