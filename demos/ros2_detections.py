"""Publish the boxes of a video or a camera to ROS 2, as vision_msgs/Detection2DArray; tracked ones have an id.

source /opt/ros/jazzy/setup.bash        # with the package ros-jazzy-vision-msgs
python demos/ros2_detections.py rtsp://camera/stream detections camera
"""

import sys

import perception
from perception.stages.track import TrackStage, tracking_options

try:
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
except ImportError as error:
    sys.exit(f"{error.name} is not installed: this demo runs where ROS 2 is, with its package vision_msgs")


def to_message(found, names, stamp, frame_id):
    """Boxes of one frame; centres and sizes in pixels, classes by their names."""
    message = Detection2DArray()
    message.header.stamp, message.header.frame_id = stamp, frame_id
    ids = [None] * len(found) if found.track_ids is None else found.track_ids.tolist()
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), ids, strict=True)
    for (left, top, right, bottom), score, class_id, track in rows:
        one, guess = Detection2D(), ObjectHypothesisWithPose()
        one.header = message.header
        one.id = "" if track is None else str(track)
        one.bbox.center.position.x, one.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        one.bbox.size_x, one.bbox.size_y = right - left, bottom - top
        guess.hypothesis.class_id, guess.hypothesis.score = names[class_id], score
        one.results.append(guess)
        message.detections.append(one)
    return message


given = [*sys.argv[1:], *("synthetic:?frames=300", "detections", "camera")[len(sys.argv) - 1 :]]
uri, topic, frame_id = given[:3]
rclpy.init()
node = rclpy.create_node("perception")
publisher = node.create_publisher(Detection2DArray, topic, qos_profile_sensor_data)
with perception.open_source(uri) as source, perception.load_model("street-open", mode="latency") as model:
    names = model.card.detection.names
    following = model.with_options(tracking_options(model.card))
    for prediction in perception.predict(source, following, [TrackStage(model.card)]):
        stamp = node.get_clock().now().to_msg()
        publisher.publish(to_message(prediction.detections, names, stamp, frame_id))
        if not rclpy.ok():
            break
node.destroy_node()
rclpy.try_shutdown()
